#pragma once

// Where the weights of a model are placed when it is loaded, in the form that the ops of the device
// read. The models know no device: they ask for products, vectors and tables.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/dtype.h"
#include "kernels/linear.h"
#include "kernels/thread_pool.h"
#include "models/weights/tensor_view.h"

namespace triptych::models {

// Rows of a product: a matrix [outputs, inputs] and perhaps its bias [outputs]. What is padded is
// filled with zeros.
struct MatrixPart {
  TensorView weight;
  int64_t outputs = 0;
  int64_t padded_outputs = 0;      // at least outputs
  std::optional<TensorView> bias;  // all parts of a product have one, or none has
};

// Parts below each other as one product (Q, K, V; gate and up).
struct Matrix {
  std::vector<MatrixPart> parts;
  int64_t inputs = 0;         // of the stored matrices
  int64_t padded_inputs = 0;  // at least inputs
};

// A row-major matrix in its stored type, for look-ups by row.
struct PlacedTable {
  const void* data = nullptr;
  base::DType type = base::DType::kFloat32;
};

// Owns what it has placed: it outlives the models that were loaded through it. One thread.
class WeightMemory {
 public:
  virtual ~WeightMemory() = default;

  // The type of activations, and of what PlaceVector places.
  virtual base::DType dtype() const = 0;
  // Inner widths that are nobody else's business are rounded up to a multiple of this.
  virtual int64_t width_multiple() const = 0;

  // Weights are BF16 or F32: INVALID_ARGUMENT for another element type, or parts that differ in it.
  // RESOURCE_EXHAUSTED when the memory is used up. The tensors may go once a call has returned.
  virtual absl::StatusOr<kernels::LinearWeights> PlaceMatrix(const Matrix& matrix) = 0;
  virtual absl::StatusOr<const void*> PlaceVector(const TensorView& vector) = 0;
  virtual absl::StatusOr<PlacedTable> PlaceTable(const TensorView& table) = 0;
  // A table [outputs, inputs] whose rows are the weights of a product too: of one memory where the
  // device's form of both is the same.
  virtual absl::StatusOr<kernels::LinearWeights> PlaceTied(const TensorView& table,
                                                           const PlacedTable& placed) = 0;
};

// Panels of 16 columns for the CPU's product, float32 vectors; on the heap. No padding is asked of
// it (CHECKed).
class HostWeightMemory final : public WeightMemory {
 public:
  // Packs on the threads of `pool`, which is borrowed and may be null.
  explicit HostWeightMemory(kernels::ThreadPool* pool = nullptr) : pool_(pool) {}

  base::DType dtype() const override { return base::DType::kFloat32; }
  int64_t width_multiple() const override { return 1; }
  absl::StatusOr<kernels::LinearWeights> PlaceMatrix(const Matrix& matrix) override;
  absl::StatusOr<const void*> PlaceVector(const TensorView& vector) override;
  absl::StatusOr<PlacedTable> PlaceTable(const TensorView& table) override;
  absl::StatusOr<kernels::LinearWeights> PlaceTied(const TensorView& table,
                                                   const PlacedTable& placed) override;

 private:
  struct Free {
    void operator()(uint8_t* bytes) const;
  };
  // 64-byte aligned.
  absl::StatusOr<absl::Span<uint8_t>> Take(int64_t bytes);

  kernels::ThreadPool* const pool_;
  std::vector<std::unique_ptr<uint8_t, Free>> blocks_;
};

// The device type of a tensor's elements. INVALID_ARGUMENT unless BF16 or F32.
absl::StatusOr<base::DType> DeviceTypeOf(const TensorView& tensor);

}  // namespace triptych::models
