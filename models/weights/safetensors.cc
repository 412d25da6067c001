#include "models/weights/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "models/weights/json_text.h"

namespace triptych::models {
namespace {

using nlohmann::json;

// The format's own limit.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
// Published tensors have at most 5 axes.
constexpr size_t kMaxRank = 8;

std::optional<TensorType> DTypeOf(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(TensorType::kFloat64); ++i) {
    const auto dtype = static_cast<TensorType>(i);
    if (NameOf(dtype) == name) return dtype;
  }
  return std::nullopt;
}

absl::Status Malformed(absl::string_view name, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("safetensors: tensor '", name, "': ", why));
}

// A JSON number that is an integer in [0, 2^63).
std::optional<int64_t> AsSize(const json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(number);
  }
  return std::nullopt;
}

// nullopt when an axis is no size or the product does not fit 63 bits.
std::optional<int64_t> ByteSize(const json& shape, TensorType dtype, std::vector<int64_t>* axes) {
  int64_t size = SizeOf(dtype);
  for (const json& axis : shape) {
    const std::optional<int64_t> length = AsSize(axis);
    if (!length.has_value() || __builtin_mul_overflow(size, *length, &size)) return std::nullopt;
    axes->push_back(*length);
  }
  return size;
}

absl::StatusOr<TensorView> ParseTensor(absl::string_view name, const json& entry,
                                       absl::Span<const char> data) {
  if (!entry.is_object()) return Malformed(name, "not an object");
  const auto dtype_entry = entry.find("dtype");
  const auto shape = entry.find("shape");
  const auto offsets = entry.find("data_offsets");
  if (dtype_entry == entry.end() || !dtype_entry->is_string()) return Malformed(name, "no dtype");
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMaxRank) {
    return Malformed(name, "no shape");
  }
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2) {
    return Malformed(name, "no data_offsets");
  }
  TensorView view;
  const std::optional<TensorType> dtype = DTypeOf(dtype_entry->get_ref<const std::string&>());
  if (!dtype.has_value()) return Malformed(name, "unknown dtype");
  view.dtype = *dtype;
  const std::optional<int64_t> size = ByteSize(*shape, *dtype, &view.shape);
  if (!size.has_value()) return Malformed(name, "shape overflows");
  const std::optional<int64_t> begin = AsSize((*offsets)[0]), end = AsSize((*offsets)[1]);
  if (!begin.has_value() || !end.has_value() || *begin > *end ||
      *end > static_cast<int64_t>(data.size())) {
    return Malformed(name, absl::StrCat("offsets leave the ", data.size(), " bytes of the file"));
  }
  if (*end - *begin != *size) {
    return Malformed(name, absl::StrCat("has ", *end - *begin, " bytes, its shape needs ", *size));
  }
  view.bytes = data.data() + *begin;
  view.size_bytes = *size;
  return view;
}

absl::Status CheckNoOverlap(const absl::flat_hash_map<std::string, TensorView>& tensors) {
  std::vector<std::pair<const char*, const char*>> ranges;
  ranges.reserve(tensors.size());
  for (const auto& [name, view] : tensors) {
    const auto* begin = static_cast<const char*>(view.bytes);
    if (view.size_bytes > 0) ranges.emplace_back(begin, begin + view.size_bytes);
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) {
      return absl::InvalidArgumentError("safetensors: two tensors overlap");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<absl::flat_hash_map<std::string, TensorView>> ParseSafetensorsHeader(
    absl::string_view header, absl::Span<const char> data) {
  ASSIGN_OR_RETURN(const json root, ParseJsonObject(header, "safetensors header"));
  absl::flat_hash_map<std::string, TensorView> tensors;
  for (const auto& [name, entry] : root.items()) {
    if (name == "__metadata__") continue;
    ASSIGN_OR_RETURN(tensors[name], ParseTensor(name, entry, data));
  }
  RETURN_IF_ERROR(CheckNoOverlap(tensors));
  return tensors;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  const absl::Span<const char> bytes = file.bytes();
  uint64_t header_size = 0;
  if (bytes.size() < sizeof(header_size)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": shorter than its header"));
  }
  std::memcpy(&header_size, bytes.data(), sizeof(header_size));
  const uint64_t left = bytes.size() - sizeof(header_size);
  if (header_size == 0 || header_size > left || header_size > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": header of ", header_size, " bytes in a file of ", bytes.size()));
  }
  const absl::string_view header(bytes.data() + sizeof(header_size), header_size);
  auto tensors = ParseSafetensorsHeader(header, bytes.subspan(sizeof(header_size) + header_size));
  if (!tensors.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", tensors.status().message()));
  }
  return SafetensorsFile(std::move(file), *std::move(tensors));
}

absl::StatusOr<TensorView> SafetensorsFile::Get(absl::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return absl::NotFoundError(absl::StrCat("no tensor '", name, "'"));
  return found->second;
}

std::vector<std::string> SafetensorsFile::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, view] : tensors_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace triptych::models
