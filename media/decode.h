#pragma once

// Decodes one picture in this process. The libraries below have had holes: what comes from outside
// goes through sandbox.h, which calls this in a child.

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/image.h"
#include "media/limits.h"

namespace triptych::media {

// RGB of a JPEG, PNG or WebP: EXIF orientation applied, alpha composited on white, gray, palette,
// 16 bits and CMYK converted. Probes first, so nothing larger than `limits` is ever allocated; a
// library's warning is an error. A JPEG is decoded at `eighths` of its size (1 to kWholeScale), see
// ScaledSide(). INVALID_ARGUMENT as ProbeImage(). Any thread.
absl::StatusOr<base::Image> DecodeImage(absl::string_view bytes, const Limits& limits,
                                        int eighths = kWholeScale);

}  // namespace triptych::media
