#pragma once

#include "absl/strings/string_view.h"

namespace triptych::media {

// The orientation (1 to 8) of an EXIF block, which is a TIFF file; 1 when it has none or is
// malformed, as viewers do. Looks at the entries of the first directory only.
int ExifOrientation(absl::string_view tiff);

// True for the orientations that swap width and height.
inline bool SwapsSides(int orientation) { return orientation >= 5; }

}  // namespace triptych::media
