#pragma once

// The names of PyTorch that flash-attn's headers mention for dropout. We never drop, so they hold
// nothing.

namespace at {
struct PhiloxCudaState {};
}  // namespace at
