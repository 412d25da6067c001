#pragma once

// Numbers that no cluster comes near. What is above them is refused where it is read, so that
// whatever is counted up from there never wraps.

#include <cstdint>

namespace triptych::scheduler {

// A scheduler a second for thirty thousand years.
inline constexpr uint64_t kHighestTerm = uint64_t{1} << 40;
// Producers of one answer that were lost.
inline constexpr uint32_t kHighestEpoch = uint32_t{1} << 30;

}  // namespace triptych::scheduler
