#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/config.h"
#include "base/status.h"
#include "services/cli/commands.h"
#include "services/cli/conversation.h"
#include "services/cli/flag_list.h"
#include "services/cli/timeline.h"

namespace triptych::services {
namespace {

struct AskOptions {
  std::string server, system;
  std::string image, frames;  // documented here, read by TakeRepeated
  double fps = 2;
  int64_t max_tokens = 0;
  bool json = false;

  void Declare(base::FlagSet* flags) {
    flags->AddString(&image, {.name = "image", .doc = "file of a picture; may come repeatedly"});
    flags->AddString(&frames, {.name = "frames",
                               .doc = "files of a video's frames, separated by commas; may come "
                                      "repeatedly"});
    flags->AddDouble(&fps, {.name = "fps",
                            .doc = "frames per second of --frames",
                            .default_value = 2,
                            .min = 0.01,
                            .max = 1000});
    flags->AddString(&server, {.name = "server",
                               .doc = "host:port of a gateway's gRPC API; empty: the local "
                                      "cluster"});
    flags->AddString(&system, {.name = "system", .doc = "system prompt"});
    flags->AddInt(&max_tokens, {.name = "max-tokens",
                                .doc = "longest answer; 0: the server's limit",
                                .default_value = 0,
                                .min = 0,
                                .max = 1 << 20});
    flags->AddBool(&json, {.name = "json", .doc = "print one JSON object at the end instead"});
  }
};

absl::StatusOr<v1::Message> Question(const std::vector<RepeatedFlag>& media,
                                     const AskOptions& options, const std::string& text) {
  v1::Message message;
  for (const RepeatedFlag& flag : media) {
    if (flag.name == "image") {
      RETURN_IF_ERROR(AddImage(flag.value, &message));
    } else {
      RETURN_IF_ERROR(AddVideo(absl::StrSplit(flag.value, ','), options.fps, &message));
    }
  }
  AddText(text, &message);
  return message;
}

void PrintPart(absl::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

absl::Status Ask(const std::vector<RepeatedFlag>& media, const AskOptions& options,
                 const std::string& text) {
  ASSIGN_OR_RETURN(const std::string server, ResolveGateway(options.server));
  ASSIGN_OR_RETURN(v1::Message question, Question(media, options, text));
  Conversation conversation(server);
  conversation.set_max_tokens(static_cast<int>(options.max_tokens));
  if (!options.system.empty()) conversation.set_system(options.system);
  bool printed = false;
  const auto on_text = [&](absl::string_view part) {
    if (options.json) return;
    printed = true;
    PrintPart(part);
  };
  absl::StatusOr<Answer> answer = conversation.Ask(std::move(question), on_text);
  if (printed) PrintPart("\n");
  RETURN_IF_ERROR(answer.status());
  if (options.json) {
    PrintPart(AnswerJson(*answer) + "\n");
  } else {
    std::fprintf(stderr, "%s\n", FormatTimeline(answer->timeline).c_str());
  }
  return absl::OkStatus();
}

}  // namespace

int RunAsk(int argc, const char* const* argv) {
  AskOptions options;
  base::FlagSet flags("triptych ask [flags] QUESTION: the answer streams to stdout",
                      base::Positional::kKeep);
  options.Declare(&flags);
  const absl::StatusOr<SplitArguments> split = TakeRepeated(argc, argv, {"image", "frames"});
  if (!split.ok()) {
    std::fprintf(stderr, "triptych ask: %s\n", std::string(split.status().message()).c_str());
    return 2;
  }
  const int code =
      base::ParseCommandLine(static_cast<int>(split->rest.size()), split->rest.data(), &flags);
  if (code >= 0) return code;
  const std::string text = absl::StrJoin(flags.positional(), " ");
  if (text.empty()) {
    std::fputs("triptych ask: want a question\n", stderr);
    return 2;
  }
  const absl::Status status = Ask(split->repeated, options, text);
  if (status.ok()) return 0;
  std::fprintf(stderr, "triptych ask: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace triptych::services
