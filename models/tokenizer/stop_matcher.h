#pragma once

// Finds stop strings in a stream of text, across the borders of its parts.

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace triptych::models {

// Lets text through as soon as it cannot be the beginning of a stop string any more, so the longest
// stop bounds what is held back. The match that ends first wins, of those the longest; how the text
// was cut into parts makes no difference. Knuth, Morris and Pratt's automaton, one a stop. One
// thread.
class StopMatcher {
 public:
  struct Output {
    std::string text;  // safe to send
    bool stopped = false;
    std::string stop;  // the one that was found
  };

  // Empty stop strings are ignored.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // Text up to the first stop string, which is swallowed. After `stopped`, everything is.
  Output Push(absl::string_view text);
  // What was held back; the answer ended without a stop string.
  std::string Finish();

 private:
  struct Automaton {
    std::string stop;
    std::vector<size_t> fallback;  // longest proper border of stop[0, i]
    size_t matched = 0;            // bytes of stop that end the text so far
    void Step(char c);
  };

  std::vector<Automaton> automata_;
  std::string held_;  // may be the beginning of a stop
  bool stopped_ = false;
};

}  // namespace triptych::models
