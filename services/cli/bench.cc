#include <cstdio>

#include "services/cli/commands.h"

namespace triptych::services {

int RunBench(int, const char* const*) {
  std::fputs("triptych bench: not built\n", stderr);
  return 1;
}

}  // namespace triptych::services
