#pragma once

// The size of a picture or video as the vision tower sees it.

#include <cstdint>

namespace triptych::base {

// Patches of one item before the merge: frames (pairs of them), rows, columns.
struct Grid {
  int32_t t = 0, h = 0, w = 0;
  int64_t patches() const { return int64_t{t} * h * w; }
  friend bool operator==(const Grid&, const Grid&) = default;
};

}  // namespace triptych::base
