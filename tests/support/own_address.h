#pragma once

// An address that no other process uses: unlike a port that was given back, it can be listened at
// again, and nobody answers there until then.

#include <unistd.h>

#include <atomic>
#include <string>

namespace triptych::testing {

// For gRPC: a name in Linux's abstract namespace, a new one with each call.
inline std::string OwnAddress() {
  static std::atomic<int> calls{0};
  return "unix-abstract:triptych-" + std::to_string(getpid()) + "-" +
         std::to_string(calls.fetch_add(1));
}

}  // namespace triptych::testing
