#pragma once

// SIGTERM and SIGINT, turned into an event that a main waits for.

namespace triptych::services {

// Blocks both signals in the calling thread, and so in every thread that starts later, and ignores
// SIGPIPE: first thing in main.
void BlockShutdownSignals();

// Waits for one of them. A second one, later, ends the process at once.
void WaitForShutdownSignal();

}  // namespace triptych::services
