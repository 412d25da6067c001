#pragma once

// How much memory something takes, counted exactly where it is asked for. A binary that uses it
// compiles heap_peak.cc in, which replaces operator new; under ASan, which must keep its own,
// nothing is counted.

#include <cstdint>

namespace triptych::testing {

// The most bytes that this thread has held through operator new since construction, beyond those
// that it held then. One at a time on a thread.
class HeapPeak {
 public:
  HeapPeak();
  int64_t bytes() const;

 private:
  const int64_t before_;
};

}  // namespace triptych::testing
