#include <cstdio>

#include "absl/strings/string_view.h"
#include "base/version.h"
#include "services/cli/commands.h"

namespace triptych::services {
namespace {

struct Subcommand {
  absl::string_view name;
  const char* doc;
  int (*run)(int argc, const char* const* argv);
};

constexpr Subcommand kSubcommands[] = {
    {"up", "a local cluster of real processes, supervised until Ctrl-C", RunUp},
    {"ask", "one question about pictures or text; the answer streams to stdout", RunAsk},
    {"chat", "a conversation", RunChat},
    {"status", "the processes of a cluster", RunStatus},
    {"timeline", "where the time of one of the last 1,000 requests went", RunTimeline},
    {"demo", "a local cluster answers the example questions", RunDemo},
    {"bench", "an open-loop load generator", RunBench},
    {"certificates", "an authority and a certificate for each role, as files", RunCertificates},
};

void PrintUsage(std::FILE* out) {
  std::fputs("usage: triptych COMMAND [FLAGS]; triptych COMMAND --help lists the flags\n\n", out);
  for (const Subcommand& command : kSubcommands) {
    std::fprintf(out, "  %-12s %s\n", command.name.data(), command.doc);
  }
}

}  // namespace

int RunTriptych(int argc, const char* const* argv) {
  const absl::string_view name = argc > 1 ? argv[1] : "";
  for (const Subcommand& command : kSubcommands) {
    if (command.name == name) return command.run(argc - 1, argv + 1);
  }
  if (name == "help" || name == "--help" || name == "-h") {
    PrintUsage(stdout);
    return 0;
  }
  if (name == "--version" || name == "version") {
    std::printf("triptych %s\n", base::kVersion);
    return 0;
  }
  PrintUsage(stderr);
  return 2;
}

}  // namespace triptych::services
