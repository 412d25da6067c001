#pragma once

// Decodes one picture in this process. The libraries below have had holes: what comes from outside
// goes through sandbox.h, which calls this in a child.

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/image.h"
#include "media/limits.h"

namespace triptych::media {

// RGB of a JPEG, PNG, WebP, GIF or BMP: the first frame, EXIF orientation applied, alpha composited
// on white, gray, palette, 16 bits and CMYK converted, made smaller while decoding where the probe
// says so. Probes first, so nothing larger than `limits` is ever allocated. What a library warns of
// is an error where pixels are missing or guessed, and nothing where all of them are there. A JPEG
// that MayScale() is decoded at `eighths` of its size (1 to kWholeScale), see ScaledSide().
// INVALID_ARGUMENT as ProbeImage(). Any thread.
absl::StatusOr<base::Image> DecodeImage(absl::string_view bytes, const Limits& limits,
                                        int eighths = kWholeScale);

}  // namespace triptych::media
