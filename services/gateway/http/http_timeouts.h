#pragma once

// How long each phase of a client's connection may take.

#include "base/clock.h"

namespace triptych::services {

struct HttpTimeouts {
  base::Duration idle = std::chrono::seconds(75);    // between two requests, to the next byte
  base::Duration header = std::chrono::seconds(10);  // whole; of the first, from the connection on
  base::Duration body = std::chrono::seconds(30);    // plus a second for each 256 KiB
  base::Duration drain = std::chrono::seconds(5);    // of what is refused
  base::Duration keep_alive = std::chrono::seconds(10);  // silence of a stream, to a comment
};

}  // namespace triptych::services
