#include "media/confinement.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>

namespace triptych::media {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kBoundsAddressSpace = false;
#else
constexpr bool kBoundsAddressSpace = true;
#endif

bool Limit(__rlimit_resource resource, int64_t most) {
  const auto value = static_cast<rlim_t>(most);
  const rlimit limit{value, value};
  return setrlimit(resource, &limit) == 0;
}

// Bytes of address space in use; 0 when unknown.
int64_t MappedBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  long long pages = 0;
  const int fields = std::fscanf(file, "%lld", &pages);
  std::fclose(file);
  return fields == 1 ? pages * sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace

bool Confine(int64_t address_bytes) {
  const int64_t mapped = MappedBytes();
  bool ok = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
  ok = prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && ok;
  ok = Limit(RLIMIT_CORE, 0) && ok;
  ok = Limit(RLIMIT_FSIZE, 0) && ok;
  if (kBoundsAddressSpace) ok = Limit(RLIMIT_AS, mapped + address_bytes) && ok;
  // Descriptors 0, 1 and 2 stay; no other can be opened.
  return Limit(RLIMIT_NOFILE, 3) && ok;
}

}  // namespace triptych::media
