#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/config.h"
#include "base/status.h"
#include "services/cli/commands.h"
#include "services/cli/conversation.h"
#include "services/cli/local_cluster.h"
#include "services/cli/timeline.h"
#include "services/runtime/shutdown.h"

namespace triptych::services {
namespace {

struct Example {
  std::string name, kind, question;
  std::vector<std::string> files;  // paths
  double fps = 2;
};

absl::StatusOr<std::vector<Example>> ReadExamples(const std::string& folder) {
  const std::string path = folder + "/questions.json";
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(absl::StrCat("--examples: cannot read ", path));
  const nlohmann::json json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  std::vector<Example> examples;
  try {
    for (const nlohmann::json& item : json) {
      Example example{
          .name = item.at("name"), .kind = item.at("kind"), .question = item.at("question")};
      example.fps = item.value("fps", 2.0);
      for (const std::string& file : item.at("files").get<std::vector<std::string>>()) {
        example.files.push_back(absl::StrCat(folder, "/", file));
      }
      examples.push_back(std::move(example));
    }
  } catch (const nlohmann::json::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", e.what()));
  }
  return examples;
}

absl::StatusOr<v1::Message> MessageOf(const Example& example) {
  v1::Message message;
  if (example.kind == "video") {
    RETURN_IF_ERROR(AddVideo(example.files, example.fps, &message));
  } else {
    for (const std::string& file : example.files) RETURN_IF_ERROR(AddImage(file, &message));
  }
  AddText(example.question, &message);
  return message;
}

// The picture's name without its folder; a video is named by how many frames it has.
std::string Title(const Example& example) {
  if (example.kind == "video") {
    return absl::StrCat(example.name, ", ", example.files.size(), " frames");
  }
  std::string title;
  for (const std::string& file : example.files) {
    absl::StrAppend(&title, title.empty() ? "" : ", ", file.substr(file.rfind('/') + 1));
  }
  return title;
}

absl::Status AskExample(const Example& example, const std::string& server) {
  std::printf("\n== %s: %s\n", Title(example).c_str(), example.question.c_str());
  std::fflush(stdout);
  ASSIGN_OR_RETURN(v1::Message message, MessageOf(example));
  Conversation conversation(server);
  const auto answer = conversation.Ask(std::move(message), [](absl::string_view part) {
    std::fwrite(part.data(), 1, part.size(), stdout);
    std::fflush(stdout);
  });
  RETURN_IF_ERROR(answer.status());
  std::printf("\n   %s\n", FormatTimeline(answer->timeline).c_str());
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status Demonstrate(const LocalClusterOptions& options, const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<Example> examples, ReadExamples(folder));
  const base::RealClock clock;
  LocalCluster cluster(options, OwnBinaryFolder(), clock);
  const base::TimePoint begin = clock.Now();
  RETURN_IF_ERROR(cluster.Start(std::chrono::minutes(2), ShutdownRequested));
  std::printf("cluster of %s ready after %.1f s at http=%s grpc=%s\n", options.workers.c_str(),
              base::ToSeconds(clock.Now() - begin), cluster.http().c_str(), cluster.grpc().c_str());
  for (const Example& example : examples) {
    if (ShutdownRequested()) return absl::CancelledError("interrupted");
    RETURN_IF_ERROR(AskExample(example, cluster.grpc()));
  }
  cluster.Stop();
  std::printf("\nstopped; %.1f s in all\n", base::ToSeconds(clock.Now() - begin));
  return absl::OkStatus();
}

}  // namespace

int RunDemo(int argc, const char* const* argv) {
  BlockShutdownSignals();
  LocalClusterOptions options;
  std::string examples;
  base::FlagSet flags("triptych demo [flags]: a local cluster answers the example questions");
  options.Declare(&flags);
  flags.AddString(&examples, {.name = "examples",
                              .doc = "folder with questions.json and its pictures",
                              .default_value = "assets/examples"});
  if (const int code = base::ParseCommandLine(argc, argv, &flags); code >= 0) return code;
  const absl::Status status = Demonstrate(options, examples);
  if (status.ok()) return 0;
  std::fprintf(stderr, "triptych demo: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace triptych::services
