#pragma once

namespace triptych::services {

// Storage types and page size of what peers exchange: part of the model fingerprint, so that only
// processes that agree on them are paired.
inline constexpr char kServedNumerics[] = "kv=float32 embeddings=float32 page=16";
inline constexpr int kKvBlockTokens = 16;

}  // namespace triptych::services
