#include "engine/gpu/device_weights.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/bfloat16.h"
#include "base/check.h"
#include "base/status.h"

namespace triptych::engine {

using models::TensorView;

namespace {

constexpr int64_t kBufferBytes = int64_t{64} << 20;
constexpr size_t kBuffers = 3;
constexpr int64_t kChunkBytes = int64_t{1} << 30;
constexpr int64_t kAlignment = 256;
constexpr int64_t kElement = sizeof(uint16_t);

// Elements [first, first + count) of a tensor as bfloat16.
void CopyElements(const TensorView& tensor, int64_t first, int64_t count, uint16_t* to) {
  const auto* bytes = static_cast<const uint8_t*>(tensor.bytes);
  if (tensor.dtype == models::TensorType::kBFloat16) {
    std::memcpy(to, bytes + first * kElement, static_cast<size_t>(count * kElement));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    float value;
    std::memcpy(&value, bytes + (first + i) * static_cast<int64_t>(sizeof(float)), sizeof(value));
    to[i] = base::ToBFloat16(value).bits;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceWeights>> DeviceWeights::Create(int device, int threads) {
  std::unique_ptr<DeviceWeights> weights(new DeviceWeights(device, threads));
  RETURN_IF_ERROR(base::UseCudaDevice(device));
  ASSIGN_OR_RETURN(base::CudaStream stream, base::CudaStream::Create(base::CudaPriority::kLow));
  weights->stream_ = std::make_unique<base::CudaStream>(std::move(stream));
  for (size_t i = 0; i < kBuffers; ++i) {
    Buffer buffer;
    ASSIGN_OR_RETURN(buffer.memory, base::PinnedMemory::Allocate(kBufferBytes));
    ASSIGN_OR_RETURN(base::CudaEvent event, base::CudaEvent::Create(base::CudaTiming::kOff));
    buffer.copied = std::make_unique<base::CudaEvent>(std::move(event));
    RETURN_IF_ERROR(buffer.copied->Record(weights->stream_->get()));
    weights->buffers_.push_back(std::move(buffer));
  }
  return weights;
}

absl::StatusOr<uint8_t*> DeviceWeights::Take(int64_t bytes) {
  const int64_t aligned = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (chunks_.empty() || chunk_used_ + aligned > chunks_.back().ref().bytes) {
    const int64_t size = std::max(aligned, kChunkBytes);
    ASSIGN_OR_RETURN(base::DeviceMemory chunk, base::DeviceMemory::Allocate(device_, size));
    chunks_.push_back(std::move(chunk));
    chunk_used_ = 0;
    bytes_ += size;
  }
  uint8_t* const taken = static_cast<uint8_t*>(chunks_.back().ref().data) + chunk_used_;
  chunk_used_ += aligned;
  return taken;
}

absl::StatusOr<void*> DeviceWeights::Upload(int64_t rows, int64_t row_elements,
                                            const FillRow& fill) {
  const int64_t row_bytes = row_elements * kElement;
  ASSIGN_OR_RETURN(uint8_t* const to, Take(rows * row_bytes));
  const int64_t rows_at_once = kBufferBytes / row_bytes;
  if (rows_at_once < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a row of ", row_elements, " weights"));
  }
  for (int64_t row = 0; row < rows; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, rows - row);
    Buffer& buffer = buffers_[next_buffer_++ % kBuffers];
    RETURN_IF_ERROR(buffer.copied->Synchronize());
    auto* const pinned = static_cast<uint16_t*>(buffer.memory.ref().data);
    const int64_t slices = std::min<int64_t>(count, 8 * kernels::NumThreads(&pool_));
    kernels::ParallelFor(&pool_, slices, [&](int64_t slice) {
      const int64_t end = count * (slice + 1) / slices;
      for (int64_t i = count * slice / slices; i < end; ++i) {
        fill(row + i, pinned + i * row_elements);
      }
    });
    RETURN_IF_ERROR(stream_->Copy({.data = to + row * row_bytes,
                                   .bytes = count * row_bytes,
                                   .space = base::MemorySpace::kCuda,
                                   .device = device_},
                                  buffer.memory.ref().Sub(0, count * row_bytes)));
    RETURN_IF_ERROR(buffer.copied->Record(stream_->get()));
  }
  return to;
}

absl::StatusOr<kernels::LinearWeights> DeviceWeights::PlaceMatrix(const models::Matrix& matrix) {
  std::vector<const models::MatrixPart*> part_of_row;
  std::vector<int64_t> first_row;
  bool has_bias = false;
  for (const models::MatrixPart& part : matrix.parts) {
    RETURN_IF_ERROR(models::DeviceTypeOf(part.weight).status());
    if (part.bias.has_value()) RETURN_IF_ERROR(models::DeviceTypeOf(*part.bias).status());
    has_bias = has_bias || part.bias.has_value();
    const auto first = static_cast<int64_t>(part_of_row.size());
    for (int64_t row = 0; row < part.padded_outputs; ++row) {
      part_of_row.push_back(&part);
      first_row.push_back(first);
    }
  }
  const auto outputs = static_cast<int64_t>(part_of_row.size());
  const int64_t width = matrix.padded_inputs;
  kernels::LinearWeights placed{.inputs = width,
                                .outputs = outputs,
                                .type = base::DType::kBFloat16,
                                .layout = kernels::LinearLayout::kRowMajor};
  ASSIGN_OR_RETURN(void* const weights, Upload(outputs, width, [&](int64_t row, uint16_t* to) {
                     const models::MatrixPart& part = *part_of_row[static_cast<size_t>(row)];
                     const int64_t in_part = row - first_row[static_cast<size_t>(row)];
                     const int64_t used = in_part < part.outputs ? matrix.inputs : 0;
                     if (used > 0) CopyElements(part.weight, in_part * matrix.inputs, used, to);
                     std::memset(to + used, 0, static_cast<size_t>((width - used) * kElement));
                   }));
  placed.matrix = {.data = weights,
                   .bytes = outputs * width * kElement,
                   .space = base::MemorySpace::kCuda,
                   .device = device_};
  if (!has_bias) return placed;
  ASSIGN_OR_RETURN(placed.bias, Upload(1, outputs, [&](int64_t, uint16_t* to) {
                     for (const models::MatrixPart& part : matrix.parts) {
                       CopyElements(*part.bias, 0, part.outputs, to);
                       std::memset(
                           to + part.outputs, 0,
                           static_cast<size_t>((part.padded_outputs - part.outputs) * kElement));
                       to += part.padded_outputs;
                     }
                   }));
  return placed;
}

absl::StatusOr<const void*> DeviceWeights::PlaceVector(const TensorView& vector) {
  RETURN_IF_ERROR(models::DeviceTypeOf(vector).status());
  const int64_t count = vector.num_elements();
  return Upload(1, count, [&](int64_t, uint16_t* to) { CopyElements(vector, 0, count, to); });
}

absl::StatusOr<models::PlacedTable> DeviceWeights::PlaceTable(const TensorView& table) {
  RETURN_IF_ERROR(models::DeviceTypeOf(table).status());
  CHECK_EQ(table.shape.size(), 2u);
  const int64_t width = table.shape[1];
  ASSIGN_OR_RETURN(const void* placed,
                   Upload(table.shape[0], width, [&](int64_t row, uint16_t* to) {
                     CopyElements(table, row * width, width, to);
                   }));
  return models::PlacedTable{placed, base::DType::kBFloat16};
}

absl::StatusOr<kernels::LinearWeights> DeviceWeights::PlaceTied(const TensorView& table,
                                                                const models::PlacedTable& placed) {
  return kernels::LinearWeights{.inputs = table.shape[1],
                                .outputs = table.shape[0],
                                .type = base::DType::kBFloat16,
                                .layout = kernels::LinearLayout::kRowMajor,
                                .matrix = {.data = const_cast<void*>(placed.data),
                                           .bytes = table.num_elements() * kElement,
                                           .space = base::MemorySpace::kCuda,
                                           .device = device_}};
}

absl::Status DeviceWeights::Finish() {
  RETURN_IF_ERROR(stream_->Synchronize());
  buffers_.clear();
  return absl::OkStatus();
}

}  // namespace triptych::engine
