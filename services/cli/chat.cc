#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <string>

#include "absl/strings/strip.h"
#include "base/config.h"
#include "services/cli/commands.h"
#include "services/cli/conversation.h"
#include "services/cli/timeline.h"

namespace triptych::services {
namespace {

struct ChatOptions {
  std::string server, system;
  int64_t max_tokens = 0;

  void Declare(base::FlagSet* flags) {
    flags->AddString(&server, {.name = "server",
                               .doc = "host:port of a gateway's gRPC API; empty: the local "
                                      "cluster"});
    flags->AddString(&system, {.name = "system", .doc = "system prompt"});
    flags->AddInt(&max_tokens, {.name = "max-tokens",
                                .doc = "longest answer; 0: the server's limit",
                                .default_value = 0,
                                .min = 0,
                                .max = 1 << 20});
  }
};

// Reads lines until /quit or the end of the input. An error ends a turn, not the conversation.
class ChatLoop {
 public:
  explicit ChatLoop(Conversation* conversation) : conversation_(conversation) {}

  void Run() {
    std::string line;
    while (Prompt() && std::getline(std::cin, line)) {
      absl::string_view rest = line;
      if (line == "/quit") return;
      if (absl::ConsumePrefix(&rest, "/image ")) {
        Report(AddImage(std::string(rest), &next_));
      } else if (!line.empty()) {
        Turn(line);
      }
    }
  }

 private:
  bool Prompt() {
    if (isatty(STDIN_FILENO)) std::fputs("> ", stderr);
    return true;
  }

  void Turn(const std::string& line) {
    AddText(line, &next_);
    const absl::StatusOr<Answer> answer =
        conversation_->Ask(std::exchange(next_, {}), [](absl::string_view part) {
          std::fwrite(part.data(), 1, part.size(), stdout);
          std::fflush(stdout);
        });
    std::fputs("\n", stdout);
    std::fflush(stdout);
    Report(answer.status());
    if (answer.ok()) std::fprintf(stderr, "%s\n", FormatTimeline(answer->timeline).c_str());
  }

  void Report(const absl::Status& status) {
    if (!status.ok()) std::fprintf(stderr, "triptych chat: %s\n", status.ToString().c_str());
  }

  Conversation* const conversation_;
  v1::Message next_;  // pictures of the next question
};

}  // namespace

int RunChat(int argc, const char* const* argv) {
  ChatOptions options;
  base::FlagSet flags("triptych chat [flags]: a conversation; /image FILE adds a picture, /quit");
  options.Declare(&flags);
  if (const int code = base::ParseCommandLine(argc, argv, &flags); code >= 0) return code;
  const absl::StatusOr<std::string> server = ResolveGateway(options.server);
  if (!server.ok()) {
    std::fprintf(stderr, "triptych chat: %s\n", server.status().ToString().c_str());
    return 1;
  }
  Conversation conversation(*server);
  conversation.set_max_tokens(static_cast<int>(options.max_tokens));
  if (!options.system.empty()) conversation.set_system(options.system);
  ChatLoop(&conversation).Run();
  return 0;
}

}  // namespace triptych::services
