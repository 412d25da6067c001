#pragma once

// Reads one safetensors file: an 8-byte little-endian header size, a JSON header that maps names to
// {dtype, shape, data_offsets}, then the bytes of the tensors. The file is mapped, never copied,
// and every number of the header is checked before it is used.

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "models/weights/mapped_file.h"
#include "models/weights/tensor_view.h"

namespace triptych::models {

// The tensors of a header: name -> view into `data`. INVALID_ARGUMENT for a header that is no JSON
// of the format, an unknown dtype, a shape whose size overflows or differs from its offsets,
// offsets out of bounds, or two tensors that overlap.
absl::StatusOr<absl::flat_hash_map<std::string, TensorView>> ParseSafetensorsHeader(
    absl::string_view header, absl::Span<const char> data);

// Immutable after Open, so any thread may read it.
class SafetensorsFile {
 public:
  // NOT_FOUND when the file cannot be opened, INVALID_ARGUMENT when it is malformed.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  // NOT_FOUND for an unknown name. The view lives as long as this file.
  absl::StatusOr<TensorView> Get(absl::string_view name) const;
  bool Contains(absl::string_view name) const { return tensors_.contains(name); }
  // Sorted.
  std::vector<std::string> Names() const;
  // The mapped file, header included.
  absl::Span<const char> bytes() const { return file_.bytes(); }

 private:
  SafetensorsFile(MappedFile file, absl::flat_hash_map<std::string, TensorView> tensors)
      : file_(std::move(file)), tensors_(std::move(tensors)) {}

  MappedFile file_;
  absl::flat_hash_map<std::string, TensorView> tensors_;
};

}  // namespace triptych::models
