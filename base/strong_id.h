#pragma once

// A number that is an identity: ids of different things do not convert into each other.

#include <compare>
#include <cstdint>
#include <utility>

namespace triptych::base {

template <typename Tag, typename Number = uint64_t>
class StrongId {
 public:
  constexpr StrongId() = default;
  constexpr explicit StrongId(Number value) : value_(value) {}
  constexpr Number value() const { return value_; }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  template <typename H>
  friend H AbslHashValue(H h, StrongId id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  Number value_ = 0;
};

}  // namespace triptych::base
