#include "media/syscall_filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace triptych::media {
namespace {

#if defined(__x86_64__)
constexpr unsigned kMachine = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned kMachine = AUDIT_ARCH_AARCH64;
#else
constexpr unsigned kMachine = 0;
#endif

// What recv, send, malloc, abort and the C library's start and end need.
constexpr unsigned kAllowed[] = {
    SYS_recvfrom,     SYS_sendto,       SYS_read,          SYS_write,     SYS_munmap,
    SYS_mremap,       SYS_madvise,      SYS_brk,           SYS_futex,     SYS_rt_sigprocmask,
    SYS_rt_sigaction, SYS_rt_sigreturn, SYS_clock_gettime, SYS_getrandom, SYS_getpid,
    SYS_gettid,       SYS_getrusage,    SYS_exit,
#if defined(__SANITIZE_ADDRESS__)
    SYS_sigaltstack,  // its run-time asks for it at every longjmp
#endif
    SYS_exit_group};
// Allowed without PROT_EXEC, their third argument: memory is never both written and run.
constexpr unsigned kMapping[] = {SYS_mmap, SYS_mprotect};

#if defined(__SANITIZE_ADDRESS__)
// Its run-time asks for more than a decoder does, and lives with a refusal.
constexpr unsigned kRefusal = SECCOMP_RET_ERRNO | EPERM;
#else
// An attack leaves a trace: the parent sees SIGSYS and counts it.
constexpr unsigned kRefusal = SECCOMP_RET_KILL_PROCESS;
#endif

sock_filter Load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset));
}
// Skips `otherwise` instructions unless the loaded word is `value`.
sock_filter Unless(unsigned value, unsigned char otherwise) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, otherwise);
}
sock_filter Return(unsigned action) { return BPF_STMT(BPF_RET | BPF_K, action); }

std::vector<sock_filter> Program() {
  const sock_filter refuse = Return(kRefusal);
  std::vector<sock_filter> program = {
      Load(offsetof(seccomp_data, arch)),
      Unless(kMachine, 1),
      BPF_STMT(BPF_JMP | BPF_JA, 1),  // over the refusal
      refuse,
      Load(offsetof(seccomp_data, nr)),
  };
  for (const unsigned call : kAllowed) {
    program.push_back(Unless(call, 1));
    program.push_back(Return(SECCOMP_RET_ALLOW));
  }
  for (const unsigned call : kMapping) {
    program.push_back(Unless(call, 4));
    program.push_back(Load(offsetof(seccomp_data, args) + 2 * sizeof(uint64_t)));
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1));
    program.push_back(refuse);
    program.push_back(Return(SECCOMP_RET_ALLOW));
  }
  program.push_back(refuse);
  return program;
}

}  // namespace

bool FilterSystemCalls() {
  if (kMachine == 0) return false;
  std::vector<sock_filter> program = Program();
  sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

}  // namespace triptych::media
