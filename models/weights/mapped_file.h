#pragma once

// A whole file mapped read-only.

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace triptych::models {

// Move-only; unmaps in the destructor. The file must not be cut while it is mapped.
class MappedFile {
 public:
  // NOT_FOUND when it cannot be opened, INVALID_ARGUMENT when it is empty or not a regular file,
  // INTERNAL when it cannot be mapped.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::Span<const char> bytes() const { return bytes_; }

 private:
  explicit MappedFile(absl::Span<const char> bytes) : bytes_(bytes) {}

  absl::Span<const char> bytes_;
};

}  // namespace triptych::models
