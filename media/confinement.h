#pragma once

// What a process that decodes foreign pictures gives up.

#include <cstdint>

namespace triptych::media {

// For good: new privileges, core files, writing to files, new descriptors, outliving its parent,
// and address space beyond `address_bytes` on top of what is mapped now. Call before the first
// foreign byte. False when the kernel refuses. Address space is not bounded under a sanitizer,
// whose shadow memory needs terabytes of it.
bool Confine(int64_t address_bytes);

}  // namespace triptych::media
