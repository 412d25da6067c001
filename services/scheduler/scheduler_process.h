#pragma once

// The scheduler process: flags, wiring, serving until told to stop.

namespace triptych::services {

// Returns the exit code.
int RunScheduler(int argc, char** argv);

}  // namespace triptych::services
