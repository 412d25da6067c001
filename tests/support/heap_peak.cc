#include "tests/support/heap_peak.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace triptych::testing {
namespace {

thread_local int64_t held = 0;
thread_local int64_t peak = 0;

// ASan has an allocator of its own, which finds what is counted here elsewhere.
#if !defined(__SANITIZE_ADDRESS__)
void* Take(std::size_t size) {
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  held += static_cast<int64_t>(malloc_usable_size(memory));
  peak = std::max(peak, held);
  return memory;
}

void Give(void* memory) {
  held -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}
#endif

}  // namespace

HeapPeak::HeapPeak() : before_(held) { peak = held; }
int64_t HeapPeak::bytes() const { return peak - before_; }

}  // namespace triptych::testing

#if !defined(__SANITIZE_ADDRESS__)
// The forms for aligned memory and those that do not throw stay the library's: nobody here asks for
// more than a bound through them.
void* operator new(std::size_t size) { return triptych::testing::Take(size); }
void* operator new[](std::size_t size) { return triptych::testing::Take(size); }
void operator delete(void* memory) noexcept { triptych::testing::Give(memory); }
void operator delete[](void* memory) noexcept { triptych::testing::Give(memory); }
void operator delete(void* memory, std::size_t) noexcept { triptych::testing::Give(memory); }
void operator delete[](void* memory, std::size_t) noexcept { triptych::testing::Give(memory); }
#endif
