#pragma once

// One conversation with a gateway: builds requests from text and files, streams the answers. Used
// by `ask`, `chat` and `demo`. One thread.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "triptych/v1/inference.grpc.pb.h"

namespace triptych::services {

// Adds a picture to a message. NOT_FOUND when the file cannot be read.
absl::Status AddImage(const std::string& path, v1::Message* message);
// Adds a video from its frames' files, in order, sampled at `fps` frames per second.
absl::Status AddVideo(const std::vector<std::string>& paths, double fps, v1::Message* message);
void AddText(absl::string_view text, v1::Message* message);

struct Answer {
  std::string text;
  v1::Finish finish = v1::FINISH_NONE;
  v1::Usage usage;
  v1::Timeline timeline;
};

class Conversation {
 public:
  // `server` is the host:port of a gateway's gRPC API. Connects at the first question.
  explicit Conversation(const std::string& server);

  void set_max_tokens(int max_tokens) { max_tokens_ = max_tokens; }
  void set_system(absl::string_view text);

  // Sends the conversation with `message` (role user) and blocks until the answer ended; `on_text`
  // gets each part of it as it comes. On success question and answer become part of the
  // conversation. The gateway's error otherwise; INTERNAL for a stream without an end.
  absl::StatusOr<Answer> Ask(v1::Message message,
                             const std::function<void(absl::string_view)>& on_text);

 private:
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::vector<v1::Message> messages_;
  int max_tokens_ = 0;  // 0: the server's limit
};

// The gateway's gRPC address: `server` itself, or that of the youngest local cluster when empty; an
// HTTP or scheduler address of a local cluster is translated. NOT_FOUND when there is none.
absl::StatusOr<std::string> ResolveGateway(const std::string& server);

}  // namespace triptych::services
