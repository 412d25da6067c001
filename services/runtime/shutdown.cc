#include "services/runtime/shutdown.h"

#include <pthread.h>
#include <signal.h>

namespace triptych::services {
namespace {

sigset_t ShutdownSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

void Release(const sigset_t& set) {
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace

void BlockShutdownSignals() {
  const sigset_t set = ShutdownSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

void WaitForShutdownSignal() {
  const sigset_t set = ShutdownSignals();
  int received = 0;
  sigwait(&set, &received);
  Release(set);
}

bool WaitForShutdownSignal(base::Duration timeout) {
  const sigset_t set = ShutdownSignals();
  const int64_t nanoseconds = timeout.count();
  const timespec longest{.tv_sec = nanoseconds / 1'000'000'000,
                         .tv_nsec = nanoseconds % 1'000'000'000};
  if (sigtimedwait(&set, nullptr, &longest) < 0) return false;
  Release(set);
  return true;
}

}  // namespace triptych::services
