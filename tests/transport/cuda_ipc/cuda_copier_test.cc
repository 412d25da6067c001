// Defended: cuda_ipc keeps the transport contract with a GPU's memory and copies. Both ends are in
// one process, which CUDA does not let open its own handles: the mapping is the region itself.
// bench/transfer moves pieces between two processes.

#include "transport/cuda_ipc/cuda_copier.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <future>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "tests/support/skip.h"
#include "tests/transport/contract.h"
#include "transport/cuda_ipc/ipc_transport.h"

namespace triptych::transport {
namespace {

using scheduler::Incarnation;

constexpr int64_t kRegion = int64_t{32} << 20;

bool WaitFor(const std::function<bool()>& done, std::chrono::milliseconds at_most) {
  const base::RealClock clock;
  const base::TimePoint end = clock.Now() + at_most;
  std::promise<void> never;
  const std::future<void> future = never.get_future();
  while (!done() && clock.Now() < end) future.wait_for(std::chrono::milliseconds(1));
  return done();
}

base::DeviceMemory Allocate() {
  auto memory = base::DeviceMemory::Allocate(0, kRegion);
  REQUIRE(memory.ok());
  return *std::move(memory);
}

class SameProcessCopier final : public PeerCopier {
 public:
  explicit SameProcessCopier(base::MemoryRef peer) : peer_(peer) {
    auto made = CudaCopier::Create(0);
    REQUIRE(made.ok());
    copier_ = *std::move(made);
  }
  absl::StatusOr<std::string> Export(const base::MemoryRef& region) override {
    return copier_->Export(region);
  }
  absl::StatusOr<std::unique_ptr<MappedRegion>> Map(const std::string&, int64_t) override {
    return std::make_unique<Itself>(peer_);
  }
  void Copy(const base::MemoryRef& to, const base::MemoryRef& from, OnDone on_done) override {
    copier_->Copy(to, from, std::move(on_done));
  }

 private:
  struct Itself final : MappedRegion {
    explicit Itself(base::MemoryRef memory) : memory_(memory) {}
    const base::MemoryRef& ref() const override { return memory_; }
    base::MemoryRef memory_;
  };
  const base::MemoryRef peer_;
  std::unique_ptr<CudaCopier> copier_;
};

class CudaPair final : public testing::TransportPair {
 public:
  CudaPair() {
    a_ = Start(a_id());
    b_ = Start(b_id());
    std::promise<absl::Status> connected;
    b_->Connect(a_id(), a_->channel(), a_->TokenFor(b_id()), [&](const absl::Status& status) {
      if (!told_) connected.set_value(status);
      told_ = true;
    });
    REQUIRE(connected.get_future().get().ok());
  }
  Transport& a() override { return *a_; }
  Transport& b() override { return *b_; }
  Incarnation a_id() const override { return Incarnation(1); }
  Incarnation b_id() const override { return Incarnation(2); }
  std::string b_address() const override { return ""; }
  void KillB() override { b_.reset(); }
  bool RunUntil(const std::function<bool()>& done) override {
    return WaitFor(done, std::chrono::seconds(10));
  }
  void RunAWhile() override {
    WaitFor([] { return false; }, std::chrono::milliseconds(100));
  }
  base::MemoryRef NewStaging(size_t bytes) override { return Next(staging_, &staged_, bytes); }
  base::MemoryRef NewLanding(size_t bytes) override { return Next(landing_, &landed_, bytes); }
  void Write(const base::MemoryRef& memory, const std::vector<uint8_t>& bytes) override {
    std::vector<uint8_t> copy = bytes;
    CopyNow(memory, base::HostRef(absl::MakeSpan(copy)));
  }
  std::vector<uint8_t> Read(const base::MemoryRef& memory) override {
    std::vector<uint8_t> bytes(static_cast<size_t>(memory.bytes));
    CopyNow(base::HostRef(absl::MakeSpan(bytes)), memory);
    return bytes;
  }

 private:
  static void CopyNow(const base::MemoryRef& to, const base::MemoryRef& from) {
    auto stream = base::CudaStream::Create(base::CudaPriority::kLow);
    REQUIRE((stream.ok() && stream->Copy(to, from).ok() && stream->Synchronize().ok()));
  }
  static base::MemoryRef Next(const base::DeviceMemory& region, int64_t* used, size_t bytes) {
    const base::MemoryRef out = region.ref().Sub(*used, static_cast<int64_t>(bytes));
    *used += out.bytes;
    return out;
  }
  std::unique_ptr<IpcTransport> Start(Incarnation self) {
    static int number = 0;
    const std::string channel = absl::StrCat("triptych-gpu-", getpid(), "-", ++number);
    auto made = IpcTransport::Start(
        {.self = self, .channel = channel, .staging = staging_.ref(), .random = base::RandomBits64},
        clock_, &copier_);
    REQUIRE(made.ok());
    return *std::move(made);
  }

  base::RealClock clock_;
  base::DeviceMemory staging_ = Allocate(), landing_ = Allocate();
  SameProcessCopier copier_{staging_.ref()};
  bool told_ = false;
  int64_t staged_ = 0, landed_ = 0;
  std::unique_ptr<IpcTransport> a_, b_;
};

TEST_CASE("CudaCopier: a GPU's memory keeps the transport contract", "[transport][cuda_ipc][gpu]") {
  if (!base::DescribeCudaDevice(0).ok()) return testing::SkipTest("no GPU");
  testing::CheckTransportContract([] { return std::make_unique<CudaPair>(); },
                                  testing::Reaches::kDeviceMemory);
}

}  // namespace
}  // namespace triptych::transport
