#pragma once

// cuBLASLt as products of many rows use it: y = x W^T (+ bias) (+ residual) in bfloat16, or float32
// out. Loaded when it is asked for, so that a program built with CUDA starts on a machine without
// it. Keeps what it found for a shape. One thread.

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace triptych::kernels {

// Device pointers; strides in elements from row to row. Aligned to 16 bytes, as are the rows.
struct LibraryProduct {
  const void* x = nullptr;  // [rows, inputs]
  int64_t rows = 0;
  int64_t x_stride = 0;
  const void* weights = nullptr;  // [outputs, inputs]
  int64_t inputs = 0;
  int64_t outputs = 0;
  const void* bias = nullptr;      // null or [outputs]
  const void* residual = nullptr;  // null or as y
  void* y = nullptr;
  int64_t y_stride = 0;
  bool float_output = false;
};

class MatrixLibrary {
 public:
  // UNAVAILABLE: no such library, or it refused to start.
  static absl::StatusOr<std::unique_ptr<MatrixLibrary>> Open();
  ~MatrixLibrary();
  MatrixLibrary(const MatrixLibrary&) = delete;
  MatrixLibrary& operator=(const MatrixLibrary&) = delete;

  // Enqueues; answers a cudaError_t. `scratch` is used in stream order.
  int Multiply(const LibraryProduct& product, void* scratch, int64_t scratch_bytes, void* stream);

 private:
  struct State;
  explicit MatrixLibrary(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace triptych::kernels
