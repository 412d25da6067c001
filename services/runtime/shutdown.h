#pragma once

// SIGTERM and SIGINT, turned into an event that a main waits for.

#include "base/clock.h"

namespace triptych::services {

// Blocks both signals in the calling thread, and so in every thread that starts later, and ignores
// SIGPIPE: first thing in main.
void BlockShutdownSignals();

// Waits for one of them. A second one, later, ends the process at once.
void WaitForShutdownSignal();
// The same, at most for so long; false when none came.
bool WaitForShutdownSignal(base::Duration timeout);

}  // namespace triptych::services
