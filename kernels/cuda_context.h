#pragma once

// What the CUDA side of an op needs beside its arguments: a stream, the handle of the matrix
// library and its scratch memory, and what is known of the device. Pointers are opaque here, so
// that no header of kernels/ needs CUDA. Made once for each stream by whoever owns the device; one
// thread at a time.

#include <cstdint>

#include "kernels/stream.h"

namespace triptych::kernels {

// What a search found for the shapes of a decode step (decode_choices.h).
struct GemmChoices;

struct CudaContext {
  void* stream = nullptr;          // cudaStream_t
  void* cublaslt = nullptr;        // MatrixLibrary; null: products of many rows are slow
  void* scratch = nullptr;         // the library's, on the device
  int64_t scratch_bytes = 0;       //
  int device = 0;                  // ordinal
  int sm_count = 0;                // of the device
  GemmChoices* choices = nullptr;  // null: choices by rule
  bool pdl = false;                // launch with programmatic dependencies
};

// The cudaStream_t of a stream.
inline void* CudaStreamOf(const Stream& stream) {
  return stream.cuda == nullptr ? nullptr : stream.cuda->stream;
}

}  // namespace triptych::kernels
