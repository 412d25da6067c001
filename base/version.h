#pragma once

// The version of the project, as CHANGELOG.md counts it.

namespace triptych::base {

inline constexpr char kVersion[] = "0.2.0";

}  // namespace triptych::base
