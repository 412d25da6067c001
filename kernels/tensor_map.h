#pragma once

// Describes a bf16 matrix to Hopper's copy engine. For CUDA sources of kernels/ alone.

#include <cuda.h>

#include <cstdint>

namespace triptych::kernels {

struct MatrixShape {
  int64_t rows;
  int64_t columns;
  int64_t stride;  // elements from row to row
};
struct BoxShape {
  int rows;     // at most 256
  int columns;  // 64: the 128 bytes of the swizzle
};

// False where the driver refuses: `matrix` or its rows not 16-byte aligned, a box too large. What
// lies outside the matrix is read as zeros.
bool MakeTensorMap(const void* matrix, const MatrixShape& shape, const BoxShape& box,
                   CUtensorMap* map);

}  // namespace triptych::kernels
