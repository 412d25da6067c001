#pragma once

// The weights of a model on a CUDA device: bfloat16, products row-major with their parts below each
// other, inner widths padded. Tensors pass through pinned buffers, filled by threads while the
// buffer before is copied. One thread.

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cuda.h"
#include "kernels/thread_pool.h"
#include "models/layers/weight_memory.h"

namespace triptych::engine {

class DeviceWeights final : public models::WeightMemory {
 public:
  // Fills buffers on `threads` threads.
  static absl::StatusOr<std::unique_ptr<DeviceWeights>> Create(int device, int threads);

  base::DType dtype() const override { return base::DType::kBFloat16; }
  int64_t width_multiple() const override { return 128; }
  absl::StatusOr<kernels::LinearWeights> PlaceMatrix(const models::Matrix& matrix) override;
  absl::StatusOr<const void*> PlaceVector(const models::TensorView& vector) override;
  absl::StatusOr<models::PlacedTable> PlaceTable(const models::TensorView& table) override;
  absl::StatusOr<kernels::LinearWeights> PlaceTied(const models::TensorView& table,
                                                   const models::PlacedTable& placed) override;

  // Waits until everything is there, and frees the buffers: nothing is placed afterwards.
  absl::Status Finish();
  int64_t bytes() const { return bytes_; }  // of the device

 private:
  // Writes `row` of a matrix, bfloat16 [row_elements].
  using FillRow = std::function<void(int64_t row, uint16_t* to)>;
  struct Buffer {
    base::PinnedMemory memory;
    std::unique_ptr<base::CudaEvent> copied;
  };

  DeviceWeights(int device, int threads) : device_(device), pool_(threads) {}
  absl::StatusOr<uint8_t*> Take(int64_t bytes);
  absl::StatusOr<void*> Upload(int64_t rows, int64_t row_elements, const FillRow& fill);

  const int device_;
  kernels::ThreadPool pool_;
  std::unique_ptr<base::CudaStream> stream_;
  std::vector<Buffer> buffers_;
  size_t next_buffer_ = 0;
  std::vector<base::DeviceMemory> chunks_;
  int64_t chunk_used_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace triptych::engine
