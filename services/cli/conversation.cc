#include "services/cli/conversation.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/rpc.h"
#include "base/status.h"
#include "services/cli/cluster_record.h"

namespace triptych::services {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  // A folder opens, and throws when it is read.
  std::error_code error;
  std::ifstream in(path, std::ios::binary);
  if (!in.is_open() || std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path));
  }
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  return bytes;
}

}  // namespace

absl::Status AddImage(const std::string& path, v1::Message* message) {
  ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
  message->add_content()->mutable_image()->set_data(std::move(bytes));
  return absl::OkStatus();
}

absl::Status AddVideo(const std::vector<std::string>& paths, double fps, v1::Message* message) {
  v1::Video video;
  video.set_fps(fps);
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
    video.add_frames()->set_data(std::move(bytes));
  }
  *message->add_content()->mutable_video() = std::move(video);
  return absl::OkStatus();
}

void AddText(absl::string_view text, v1::Message* message) {
  message->add_content()->set_text(std::string(text));
}

Conversation::Conversation(const std::string& server)
    : stub_(v1::Inference::NewStub(base::ConnectAsClient(server))) {}

void Conversation::set_system(absl::string_view text) {
  v1::Message message;
  message.set_role("system");
  AddText(text, &message);
  messages_.insert(messages_.begin(), std::move(message));
}

absl::StatusOr<Answer> Conversation::Ask(v1::Message message,
                                         const std::function<void(absl::string_view)>& on_text) {
  message.set_role("user");
  v1::GenerateRequest request;
  for (const v1::Message& earlier : messages_) *request.add_messages() = earlier;
  *request.add_messages() = message;
  if (max_tokens_ > 0) request.set_max_tokens(max_tokens_);
  grpc::ClientContext context;
  const auto stream = stub_->Generate(&context, request);
  Answer answer;
  v1::GenerateResponse response;
  while (stream->Read(&response)) {
    answer.text += response.text();
    if (!response.text().empty() && on_text) on_text(response.text());
    if (response.finish() == v1::FINISH_NONE) continue;
    answer.finish = response.finish();
    answer.usage = response.usage();
    answer.timeline = response.timeline();
  }
  RETURN_IF_ERROR(base::FromGrpc(stream->Finish()));
  if (answer.finish == v1::FINISH_NONE) return absl::InternalError("the answer has no end");
  messages_.push_back(std::move(message));
  v1::Message reply;
  reply.set_role("assistant");
  AddText(answer.text, &reply);
  messages_.push_back(std::move(reply));
  return answer;
}

absl::StatusOr<std::string> ResolveGateway(const std::string& server) {
  const absl::StatusOr<ClusterRecord> cluster = FindCluster(ClusterRecordFolder(), server);
  if (cluster.ok() && !cluster->grpc.empty()) return cluster->grpc;
  if (!server.empty()) return server;
  return cluster.ok() ? absl::NotFoundError("the local cluster is still starting")
                      : cluster.status();
}

}  // namespace triptych::services
