#pragma once

// Pulls the inputs of tasks from gateways: one batched stream to each gateway. Media come chunk by
// chunk, each asked for when the last has come, so that a large picture delays nobody and what is
// under way is bounded. A stream that breaks is opened again, and what was asked on it is asked
// again: pulls are idempotent.

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/rpc_security.h"
#include "scheduler/plan/gateway_messages.h"
#include "services/worker/media_preparer.h"
#include "services/worker/peer_streams.h"
#include "triptych/v1/payload.grpc.pb.h"

namespace triptych::services {

// Thread-safe.
class InputPuller {
 public:
  // Called from gRPC's threads or the caller's, without a lock; must not block. `on_media` follows
  // `on_input` for encode tasks, unless the pull failed.
  struct Listener {
    std::function<void(scheduler::TaskId, absl::StatusOr<scheduler::PulledInput>)> on_input;
    std::function<void(scheduler::TaskId, ItemMedia)> on_media;
    // What was pulled of the task is of no use any more. May be empty.
    std::function<void(scheduler::TaskId)> on_drop;
  };

  // `self` is this worker's incarnation.
  InputPuller(scheduler::Incarnation self, base::RpcSecurity security, Listener listener);
  // Closes every stream; nothing is answered afterwards.
  ~InputPuller() { streams_.Stop(); }

  // Leaves with the next Flush.
  void Pull(const scheduler::PullRequest& request, const scheduler::PeerAddress& gateway);
  void Flush() { streams_.Flush(); }
  // No answer is wanted any more; one may still come.
  void Drop(scheduler::TaskId task);
  // A gateway that is gone: what was asked of it fails with UNAVAILABLE.
  void ForgetGateway(scheduler::Incarnation gateway);

 private:
  using Streams = PeerStreams<v1::PullRequestBatch, v1::PullAnswerBatch>;

  // One task's pull. Encode tasks pull media too.
  struct Wanted {
    scheduler::PullRequest request;
    scheduler::PeerAddress gateway;
    int breaks = 0;      // of the stream, while it was wanted
    bool asked = false;  // and not answered
    std::optional<scheduler::PulledInput> input;
    v1::MediaLayout layout;
    int64_t media_bytes = 0;  // of all pictures, once the layout is known
    ItemMedia media;
    std::string bytes;  // of the pictures, one after the other
    bool media_too() const { return request.stage == scheduler::Stage::kEncode; }
    bool complete() const {
      return input.has_value() && static_cast<int64_t>(bytes.size()) == media_bytes;
    }
  };
  // A pull that is over.
  struct Ended {
    absl::Status status;
    Wanted wanted;
  };

  // At 1 MiB each, a quarter of what may gather in a gateway's stream.
  static constexpr int kMaxMediaAsked = 16;
  // Of one gateway's stream, before its pulls fail.
  static constexpr int kMaxBreaks = 3;

  Streams::Wiring MakeWiring();
  void OnAnswers(scheduler::Incarnation gateway, v1::PullAnswerBatch& batch);
  void OnLost(const scheduler::PeerAddress& gateway);
  static absl::Status Take(v1::PullAnswer& answer, Wanted* wanted);
  static absl::Status TakeInput(const v1::PulledInput& input, Wanted* wanted);
  static void CutMedia(Wanted* wanted);
  void Ask(Wanted& wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Puts a pull of media into its gateway's line.
  void Queue(const Wanted& wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AskNextMedia(scheduler::Incarnation gateway) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The pull is no longer under way, whatever becomes of it.
  void NoteHeard(Wanted& wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(Ended ended);

  const base::RpcSecurity security_;
  const Listener listener_;
  base::Mutex mutex_;
  absl::flat_hash_map<scheduler::TaskId, Wanted> wanted_ ABSL_GUARDED_BY(mutex_);
  // Pulls of media from one gateway.
  struct MediaLine {
    int asked = 0;
    std::deque<scheduler::TaskId> waiting;  // may name tasks that were dropped
  };
  absl::flat_hash_map<scheduler::Incarnation, MediaLine> lines_ ABSL_GUARDED_BY(mutex_);
  Streams streams_;  // last: its callbacks use everything above
};

}  // namespace triptych::services
