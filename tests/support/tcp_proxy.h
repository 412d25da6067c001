#pragma once

// A TCP proxy on loopback that a test can break: resets every connection, or lets bytes of one or
// both directions wait. One thread of its own; every method may be called from any thread.

#include <cstdint>
#include <list>
#include <string>
#include <thread>

#include "base/mutex.h"

namespace triptych::testing {

// A port on which nothing listened a moment ago.
int FreePort();

class TcpProxy {
 public:
  // Forwards to 127.0.0.1:`target_port`, on which somebody may listen later.
  explicit TcpProxy(int target_port);
  ~TcpProxy();
  std::string address() const;

  // Every connection of now ends with a reset; later ones are accepted. Returns how many.
  int ResetAll();
  // Bytes stay where they are, and connections open, until they may pass again.
  enum class Direction : uint8_t { kToTarget, kFromTarget };
  void Hold(Direction direction, bool hold);

 private:
  struct Connection {
    int client = -1, target = -1;
  };
  void Run();
  void Accept() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static bool Forward(int from, int to);
  static void Reset(const Connection& connection);

  const int target_port_;
  int listener_ = -1;
  int port_ = 0;
  int wake_[2] = {-1, -1};
  base::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool hold_to_target_ ABSL_GUARDED_BY(mutex_) = false;
  bool hold_from_target_ ABSL_GUARDED_BY(mutex_) = false;
  std::list<Connection> connections_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses everything above
};

}  // namespace triptych::testing
