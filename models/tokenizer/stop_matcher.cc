#include "models/tokenizer/stop_matcher.h"

#include <algorithm>

namespace triptych::models {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    if (stop.empty()) continue;
    Automaton automaton;
    automaton.stop = stop;
    automaton.fallback.resize(stop.size());
    for (size_t i = 1, border = 0; i < stop.size(); ++i) {
      while (border > 0 && stop[i] != stop[border]) border = automaton.fallback[border - 1];
      if (stop[i] == stop[border]) ++border;
      automaton.fallback[i] = border;
    }
    automata_.push_back(std::move(automaton));
  }
}

void StopMatcher::Automaton::Step(char c) {
  while (matched > 0 && stop[matched] != c) matched = fallback[matched - 1];
  if (stop[matched] == c) ++matched;
}

StopMatcher::Output StopMatcher::Push(absl::string_view text) {
  Output out;
  out.stopped = stopped_;
  if (stopped_) return out;
  size_t longest = 0;
  for (const char c : text) {
    held_ += c;
    longest = 0;
    size_t complete = 0;
    for (Automaton& automaton : automata_) {
      automaton.Step(c);
      longest = std::max(longest, automaton.matched);
      if (automaton.matched == automaton.stop.size()) {
        complete = std::max(complete, automaton.matched);
      }
    }
    if (complete == 0) continue;
    stopped_ = out.stopped = true;
    out.stop = held_.substr(held_.size() - complete);
    held_.resize(held_.size() - complete);
    out.text = std::move(held_);
    held_.clear();
    return out;
  }
  if (automata_.empty() || !text.empty()) {
    out.text = held_.substr(0, held_.size() - longest);
    held_.erase(0, out.text.size());
  }
  return out;
}

std::string StopMatcher::Finish() {
  std::string rest = std::move(held_);
  held_.clear();
  return rest;
}

}  // namespace triptych::models
