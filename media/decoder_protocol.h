#pragma once

// What parent and child say over their socket pair. Both are the same build on the same machine, so
// the structs travel as they are. A request is a header and the picture's bytes; a reply is a
// header and, when kOk, width * height * 3 bytes of RGB. The parent trusts nothing in a reply.

#include <cstdint>

#include "media/limits.h"

namespace triptych::media {

// The child's end of the socket pair.
inline constexpr int kDecoderSocket = 0;

struct DecodeRequestHeader {
  Limits limits;
  int64_t size_bytes = 0;
  int64_t eighths = kWholeScale;  // of its size that a JPEG is decoded at
};

enum class DecodeOutcome : uint32_t { kOk, kTooLarge, kMalformed, kUnsupported };

struct DecodeReplyHeader {
  DecodeOutcome outcome = DecodeOutcome::kMalformed;
  int32_t width = 0;
  int32_t height = 0;
};

}  // namespace triptych::media
