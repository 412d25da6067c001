#include "models/weights/tensor_view.h"

#include <bit>
#include <cstring>

#include "base/check.h"

namespace triptych::models {

int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kUint8:
    case DType::kInt8:
      return 1;
    case DType::kInt16:
    case DType::kUint16:
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kInt32:
    case DType::kUint32:
    case DType::kFloat32:
      return 4;
    case DType::kInt64:
    case DType::kUint64:
    case DType::kFloat64:
      return 8;
  }
  return 0;
}

absl::string_view NameOf(DType dtype) {
  constexpr absl::string_view kNames[] = {"BOOL", "U8",  "I8",  "I16",  "U16", "I32", "U32",
                                          "I64",  "U64", "F16", "BF16", "F32", "F64"};
  return kNames[static_cast<size_t>(dtype)];
}

std::vector<float> ToFloats(const TensorView& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  if (tensor.dtype == DType::kFloat32) {
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes, values.size() * sizeof(float));
    return values;
  }
  CHECK_TRUE(tensor.dtype == DType::kBFloat16);
  const auto* bytes = static_cast<const char*>(tensor.bytes);
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t high;
    std::memcpy(&high, bytes + 2 * i, 2);
    values[i] = std::bit_cast<float>(uint32_t{high} << 16);
  }
  return values;
}

std::vector<int64_t> ToInt64s(const TensorView& tensor) {
  CHECK_TRUE(tensor.dtype == DType::kInt64);
  std::vector<int64_t> values(static_cast<size_t>(tensor.num_elements()));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes, values.size() * sizeof(int64_t));
  return values;
}

}  // namespace triptych::models
