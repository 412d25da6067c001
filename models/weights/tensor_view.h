#pragma once

// A tensor in somebody else's memory.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"

namespace triptych::models {

// Element types of a safetensors file; bytes are little-endian.
enum class TensorType {
  kBool,
  kUint8,
  kInt8,
  kInt16,
  kUint16,
  kInt32,
  kUint32,
  kInt64,
  kUint64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
};

// Bytes of one element.
int64_t SizeOf(TensorType dtype);
// The format's own name, "BF16" for example.
absl::string_view NameOf(TensorType dtype);

// Valid as long as the file that it came from, or as its owner. `bytes` is row-major and may be
// aligned to no more than one byte.
struct TensorView {
  TensorType dtype = TensorType::kFloat32;
  std::vector<int64_t> shape;
  const void* bytes = nullptr;
  int64_t size_bytes = 0;
  std::shared_ptr<const void> owner;  // shared by copies of the view; null: borrowed from a file

  int64_t num_elements() const { return size_bytes / SizeOf(dtype); }
};

// The elements of a BF16 or F32 tensor widened to float32 (exact). Any other type is a CHECK.
std::vector<float> ToFloats(const TensorView& tensor);
// The elements of an I64 tensor. Any other type is a CHECK.
std::vector<int64_t> ToInt64s(const TensorView& tensor);

}  // namespace triptych::models
