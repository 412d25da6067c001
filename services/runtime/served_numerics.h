#pragma once

namespace triptych::services {

// Tokens of a KV page, on every device.
inline constexpr int kKvBlockTokens = 16;

}  // namespace triptych::services
