#include "kernels/rope_append.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {
namespace {

absl::Status CheckSizes(const RopeAppendArgs& args) {
  const KvLayout& layout = args.layout;
  if (!IsActivation(args.dtype) || !IsActivation(layout.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat("RopeAppend: ", DTypeName(args.dtype), " into ",
                                                   DTypeName(layout.dtype), " pages"));
  }
  if (args.tokens < 0 || args.heads < 0 || args.num_blocks < 1 || layout.kv_heads < 1 ||
      layout.block_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "RopeAppend: tokens ", args.tokens, ", heads ", args.heads, ", num_blocks ",
        args.num_blocks, ", kv_heads ", layout.kv_heads, ", block_tokens ", layout.block_tokens));
  }
  if (args.table->head_dim != layout.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat("RopeAppend: a table for head_dim ",
                                                   args.table->head_dim, ", pages for ",
                                                   layout.head_dim));
  }
  const int64_t q_row = int64_t{args.heads} * layout.head_dim;
  const int64_t kv_row = layout.token_elements();
  if (args.q_stride < q_row || args.k_stride < kv_row || args.v_stride < kv_row ||
      args.positions_stride < args.tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("RopeAppend: strides q ", args.q_stride, ", k ", args.k_stride, ", v ",
                     args.v_stride, ", positions ", args.positions_stride, " for rows of ", q_row,
                     ", ", kv_row, ", ", kv_row, " and ", args.tokens));
  }
  return absl::OkStatus();
}

absl::Status Check(const RopeAppendArgs& args) {
  if ((args.q == nullptr && args.heads > 0) || args.k == nullptr || args.v == nullptr ||
      args.positions == nullptr || args.slots == nullptr || args.pages == nullptr ||
      args.table == nullptr) {
    return absl::InvalidArgumentError("RopeAppend: a pointer is missing");
  }
  return CheckSizes(args);
}

absl::Status CheckSlots(const RopeAppendArgs& args) {
  const int64_t num_slots = args.num_blocks * args.layout.block_tokens;
  for (int64_t t = 0; t < args.tokens; ++t) {
    if (args.slots[t] >= num_slots) {
      return absl::InvalidArgumentError(absl::StrCat("RopeAppend: token ", t, " goes to slot ",
                                                     args.slots[t], " of ", num_slots));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RopeTable> MakeRopeTable(int head_dim, double theta,
                                        absl::Span<const int> mrope_section) {
  if (head_dim < 2 || head_dim > kMaxRopeHeadDim || head_dim % 2 != 0 || !(theta > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("MakeRopeTable: head_dim ", head_dim, ", theta ", theta));
  }
  const int half = head_dim / 2;
  int ends[3] = {half, half, half};
  if (!mrope_section.empty()) {
    int64_t sum = 0;
    bool negative = false;
    for (size_t s = 0; s < mrope_section.size(); ++s) {
      negative = negative || mrope_section[s] < 0;
      sum += mrope_section[s];
      if (s < 3) ends[s] = static_cast<int>(sum);
    }
    if (mrope_section.size() != 3 || negative || sum != half) {
      return absl::InvalidArgumentError(absl::StrCat("MakeRopeTable: ", mrope_section.size(),
                                                     " sections that sum to ", sum,
                                                     ", want 3 that sum to ", half));
    }
  }
  RopeTable table;
  table.head_dim = head_dim;
  for (int i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    table.inv_freq[i] = 1.0f / power;
    table.axis[i] = static_cast<uint8_t>(i < ends[0] ? 0 : i < ends[1] ? 1 : 2);
  }
  return table;
}

absl::Status RopeAppend(const RopeAppendArgs& given, const Stream& stream) {
  RopeAppendArgs args = given;
  if (args.positions_stride == 0) args.positions_stride = args.tokens;
  RETURN_IF_ERROR(Check(args));
  if (args.tokens == 0) return absl::OkStatus();
  if (stream.device == Device::kCpu) {
    RETURN_IF_ERROR(CheckSlots(args));
    internal::RopeAppendCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("RopeAppend", internal::RopeAppendCuda(args, stream));
#else
  return NoCudaSide("RopeAppend");
#endif
}

}  // namespace triptych::kernels
