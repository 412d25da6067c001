#include "tests/transport/cuda_ipc/host_copier.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace triptych::testing {
namespace {

void* MapFile(int fd, int64_t bytes) {
  void* const data =
      mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return data == MAP_FAILED ? nullptr : data;
}

class MappedFile final : public transport::MappedRegion {
 public:
  explicit MappedFile(const base::MemoryRef& ref) : ref_(ref) {}
  ~MappedFile() override { munmap(ref_.data, static_cast<size_t>(ref_.bytes)); }
  const base::MemoryRef& ref() const override { return ref_; }

 private:
  const base::MemoryRef ref_;
};

}  // namespace

SharedMemory::SharedMemory(int64_t bytes) : fd_(memfd_create("region", MFD_CLOEXEC)) {
  CHECK_TRUE(fd_ >= 0 && ftruncate(fd_, bytes) == 0);
  ref_ = {.data = MapFile(fd_, bytes), .bytes = bytes};
  CHECK_TRUE(ref_.data != nullptr);
}

SharedMemory::~SharedMemory() {
  munmap(ref_.data, static_cast<size_t>(ref_.bytes));
  close(fd_);
}

std::string SharedMemory::path() const { return absl::StrCat("/proc/", getpid(), "/fd/", fd_); }

HostCopier::HostCopier(const SharedMemory& exported)
    : exported_(exported), thread_([this] { Run(); }) {}

HostCopier::~HostCopier() {
  Release();
  entries_.Close();
  thread_.join();
}

absl::StatusOr<std::string> HostCopier::Export(const base::MemoryRef& region) {
  CHECK_TRUE(region.data == exported_.ref().data);
  return exported_.path();
}

absl::StatusOr<std::unique_ptr<transport::MappedRegion>> HostCopier::Map(const std::string& handle,
                                                                         int64_t bytes) {
  const int fd = open(handle.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return absl::UnavailableError("no such region");
  void* const data = MapFile(fd, bytes);
  close(fd);
  if (data == nullptr) return absl::UnavailableError("not mapped");
  return std::make_unique<MappedFile>(base::MemoryRef{.data = data, .bytes = bytes});
}

void HostCopier::Copy(const base::MemoryRef& to, const base::MemoryRef& from, OnDone on_done) {
  CHECK_EQ(to.bytes, from.bytes);
  CHECK_TRUE(entries_.TryPush({to, from, std::move(on_done)}));
}

void HostCopier::Hold() {
  base::MutexLock lock(&mutex_);
  held_ = true;
}

void HostCopier::Release() {
  base::MutexLock lock(&mutex_);
  held_ = false;
  released_.NotifyAll();
}

void HostCopier::Run() {
  while (std::optional<Entry> entry = entries_.Pop()) {
    std::memcpy(entry->to.data, entry->from.data, static_cast<size_t>(entry->to.bytes));
    {
      base::MutexLock lock(&mutex_);
      while (held_) released_.Wait(&mutex_);
    }
    entry->on_done(absl::OkStatus());
  }
}

}  // namespace triptych::testing
