#pragma once

// File descriptors: gRPC 1.51 never accepts again on a port where it once found none left, so there
// must be more than strangers can take.

#include <cstdint>

namespace triptych::services {

// Raises the soft limit to the hard one, at most 2^20. Returns what it is now. First thing in main.
int64_t RaiseDescriptorLimit();

}  // namespace triptych::services
