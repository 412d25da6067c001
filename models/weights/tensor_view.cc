#include "models/weights/tensor_view.h"

#include <cstring>

#include "base/bfloat16.h"
#include "base/check.h"

namespace triptych::models {

int64_t SizeOf(TensorType dtype) {
  switch (dtype) {
    case TensorType::kBool:
    case TensorType::kUint8:
    case TensorType::kInt8:
      return 1;
    case TensorType::kInt16:
    case TensorType::kUint16:
    case TensorType::kFloat16:
    case TensorType::kBFloat16:
      return 2;
    case TensorType::kInt32:
    case TensorType::kUint32:
    case TensorType::kFloat32:
      return 4;
    case TensorType::kInt64:
    case TensorType::kUint64:
    case TensorType::kFloat64:
      return 8;
  }
  return 0;
}

absl::string_view NameOf(TensorType dtype) {
  constexpr absl::string_view kNames[] = {"BOOL", "U8",  "I8",  "I16",  "U16", "I32", "U32",
                                          "I64",  "U64", "F16", "BF16", "F32", "F64"};
  return kNames[static_cast<size_t>(dtype)];
}

std::vector<float> ToFloats(const TensorView& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  if (tensor.dtype == TensorType::kFloat32) {
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes, values.size() * sizeof(float));
    return values;
  }
  CHECK_TRUE(tensor.dtype == TensorType::kBFloat16);
  const auto* bytes = static_cast<const char*>(tensor.bytes);
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t high;
    std::memcpy(&high, bytes + 2 * i, 2);
    values[i] = base::ToFloat(base::BFloat16{high});
  }
  return values;
}

std::vector<int64_t> ToInt64s(const TensorView& tensor) {
  CHECK_TRUE(tensor.dtype == TensorType::kInt64);
  std::vector<int64_t> values(static_cast<size_t>(tensor.num_elements()));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes, values.size() * sizeof(int64_t));
  return values;
}

}  // namespace triptych::models
