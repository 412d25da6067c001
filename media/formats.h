#pragma once

// One header parser a format, behind ProbeImage(), and the sniffing that picks one.

#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "media/limits.h"
#include "media/probe.h"

namespace triptych::media {

inline constexpr absl::string_view kPngSignature{"\x89PNG\r\n\x1a\n", 8};

// By the first bytes; nullopt for anything else.
std::optional<Format> SniffFormat(absl::string_view bytes);

// Each measures bytes of its own format. Width and height are positive and as stored, before the
// orientation; only the scan count is checked against `limits`.
absl::StatusOr<Probe> ProbeJpeg(absl::string_view bytes, const Limits& limits);
absl::StatusOr<Probe> ProbePng(absl::string_view bytes);
absl::StatusOr<Probe> ProbeWebp(absl::string_view bytes);
absl::StatusOr<Probe> ProbeGif(absl::string_view bytes);
absl::StatusOr<Probe> ProbeBmp(absl::string_view bytes);

// A side that is divided while decoding.
inline int Reduced(int side, int reduction) { return (side + reduction - 1) / reduction; }

}  // namespace triptych::media
