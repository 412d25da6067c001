#pragma once

// What a load generator asks: a weighted set of requests, read from a JSON file (bench/README.md
// describes it). One thread.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/random.h"
#include "triptych/v1/inference.pb.h"

namespace triptych::services {

struct MixEntry {
  std::string name;
  double weight = 1;
  std::string text;                 // "{n}" becomes the request's number: no two prompts are equal
  std::vector<std::string> images;  // bytes of the files
  int max_tokens = 16;
};

struct RequestMix {
  std::vector<MixEntry> entries;  // not empty
};

// Paths of pictures are relative to the mix file. INVALID_ARGUMENT names the file and the entry:
// not JSON, no entry, a weight that is not positive, max_tokens below 1; NOT_FOUND for a file that
// cannot be read.
absl::StatusOr<RequestMix> ReadMix(const std::string& path);

// An entry drawn by weight.
const MixEntry& Draw(const RequestMix& mix, base::SeededRandom* random);

// The request number `number`. With `context_tokens` > 0 the text is about that many tokens of
// filler instead of the entry's; with `generated_tokens` > 0 it is the longest answer.
v1::GenerateRequest MakeRequest(const MixEntry& entry, int64_t number, int context_tokens,
                                int generated_tokens);

}  // namespace triptych::services
