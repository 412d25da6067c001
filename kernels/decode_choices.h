#pragma once

// How the kernels of a decode step are cut, found by searching in whole steps
// (bench/gpu/decode_step.cc) and kept as text, one choice a line; '#' begins a comment:
//   linear INPUTS OUTPUTS SWIGLU ROWS CHUNKxCHUNKSxBOXES SPLIT STAGES TRIGGER
//   attention HEADS KV_HEADS ROWS CONTEXT CLUSTER TARGET BESIDE EARLY
// A line serves batches of up to ROWS rows, which see up to CONTEXT tokens each in the mean (0: any
// number). Shapes without a line get a choice by rule. Part of the CUDA side; immutable once made.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/decode_attention.h"
#include "kernels/linear_decode.h"

namespace triptych::kernels {

struct LinearChoiceKey {
  int64_t inputs = 0;
  int64_t outputs = 0;  // of the weights
  bool swiglu = false;
};

struct AttentionChoiceKey {
  int heads = 0;
  int kv_heads = 0;
};

struct GemmChoices {
  struct Linear {
    LinearChoiceKey key;
    int64_t rows;
    DecodeLinearChoice choice;
  };
  struct Attention {
    AttentionChoiceKey key;
    int64_t rows;
    int64_t context;
    DecodeAttentionChoice choice;
  };
  std::vector<Linear> linear;
  std::vector<Attention> attention;

  // The line with the fewest rows that are not fewer than `rows`, and of those the one with the
  // shortest context that is long enough; null: none.
  const DecodeLinearChoice* Find(const LinearChoiceKey& key, int64_t rows) const;
  const DecodeAttentionChoice* Find(const AttentionChoiceKey& key, int64_t rows,
                                    int64_t context) const;
};

// InvalidArgument: a line that is none of the above, with its number.
absl::StatusOr<GemmChoices> ParseDecodeChoices(absl::string_view text);

// By rule: blocks for every multiprocessor, deep rings, sums shared by few blocks.
DecodeAttentionChoice RuleForAttention(const AttentionChoiceKey& key, int64_t rows, int64_t context,
                                       int sm_count);

}  // namespace triptych::kernels
