#pragma once

// The subcommands of `triptych`. Each takes its own arguments (argv[0] is the subcommand), talks to
// a person on stdout and stderr, and returns the exit code: 0, 1 for an error, 2 for wrong usage.

namespace triptych::services {

int RunUp(int argc, const char* const* argv);
int RunAsk(int argc, const char* const* argv);
int RunChat(int argc, const char* const* argv);
int RunTimeline(int argc, const char* const* argv);
int RunStatus(int argc, const char* const* argv);
int RunDemo(int argc, const char* const* argv);
int RunBench(int argc, const char* const* argv);
int RunCertificates(int argc, const char* const* argv);

// Runs the subcommand that argv[1] names.
int RunTriptych(int argc, const char* const* argv);

}  // namespace triptych::services
