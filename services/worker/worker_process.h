#pragma once

// The worker process: flags, wiring, serving until told to stop.

namespace triptych::services {

// Returns the exit code.
int RunWorker(int argc, char** argv);

}  // namespace triptych::services
