#pragma once

// The frame type that media hands to the processor.

#include <cstdint>
#include <vector>

namespace triptych::base {

// 8-bit RGB, row-major, interleaved: pixels[(y * width + x) * 3 + channel].
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> pixels;
};

}  // namespace triptych::base
