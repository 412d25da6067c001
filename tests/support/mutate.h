#pragma once

// Small harm to a good input: what a fuzzer does first, from a seed.

#include <algorithm>
#include <string>
#include <vector>

#include "base/random.h"

namespace triptych::testing {

// `good` after one to four changes: a bit flipped, a byte replaced, a stretch cut out, doubled or
// moved, the rest cut off, or one of `fragments` (not empty) put in.
inline std::string Mutate(std::string good, const std::vector<std::string>& fragments,
                          base::SeededRandom* random) {
  for (uint64_t changes = 1 + random->Below(4); changes > 0; --changes) {
    if (good.empty()) return good;
    const size_t at = random->Below(good.size());
    const size_t size = std::min<size_t>(1 + random->Below(16), good.size() - at);
    switch (random->Below(7)) {
      case 0:
        good[at] ^= static_cast<char>(1 << random->Below(8));
        break;
      case 1:
        good[at] = static_cast<char>(random->Next());
        break;
      case 2:
        good.erase(at, size);
        break;
      case 3:
        good.insert(at, std::string(good, at, size));
        break;
      case 4: {
        const std::string moved = good.substr(at, size);
        good.erase(at, size);
        good.insert(random->Below(good.size() + 1), moved);
        break;
      }
      case 5:
        // Seldom: most of what is short is refused for the same reason.
        if (random->Chance(0.1)) good.resize(at);
        break;
      default:
        good.insert(at, fragments[random->Below(fragments.size())]);
    }
  }
  return good;
}

}  // namespace triptych::testing
