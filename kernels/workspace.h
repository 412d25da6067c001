#pragma once

// Scratch memory of one step as a stack over one region: what an op takes it gives back before it
// returns, what a model takes it gives back at the end of the step. It allocates nothing, so the
// addresses of a step are the same each time: a captured graph stays valid. One thread.

#include <cstdint>

#include "base/check.h"
#include "base/memory_ref.h"

namespace triptych::kernels {

class Workspace {
 public:
  static constexpr int64_t kAlignment = 256;

  // `region` is borrowed; its start must be aligned to kAlignment where alignment matters.
  explicit Workspace(base::MemoryRef region) : region_(region) {}

  // `bytes` from the region. Too little room is a CHECK: sizes are planned at start.
  void* Take(int64_t bytes) {
    CHECK_TRUE(bytes >= 0 && bytes <= region_.bytes - used_);
    void* taken = static_cast<uint8_t*>(region_.data) + used_;
    used_ = Aligned(used_ + bytes);
    if (used_ > region_.bytes) used_ = region_.bytes;
    if (used_ > high_water_) high_water_ = used_;
    return taken;
  }

  // Release(Mark()) gives back what was taken between the two.
  int64_t Mark() const { return used_; }
  void Release(int64_t mark) {
    CHECK_TRUE(mark >= 0 && mark <= used_);
    used_ = mark;
  }

  // The most that was ever taken, in bytes.
  int64_t high_water() const { return high_water_; }
  const base::MemoryRef& region() const { return region_; }

  // What Take(bytes) uses up.
  static constexpr int64_t Aligned(int64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

 private:
  base::MemoryRef region_;
  int64_t used_ = 0;
  int64_t high_water_ = 0;
};

// Gives back at the end of a scope what was taken inside it. A null workspace is fine.
class WorkspaceScope {
 public:
  explicit WorkspaceScope(Workspace* workspace)
      : workspace_(workspace), mark_(workspace == nullptr ? 0 : workspace->Mark()) {}
  ~WorkspaceScope() {
    if (workspace_ != nullptr) workspace_->Release(mark_);
  }
  WorkspaceScope(const WorkspaceScope&) = delete;
  WorkspaceScope& operator=(const WorkspaceScope&) = delete;

 private:
  Workspace* workspace_;
  int64_t mark_;
};

}  // namespace triptych::kernels
