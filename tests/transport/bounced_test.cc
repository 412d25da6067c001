// Defended: memory of a device goes over a transport of host memory under the same contract, by
// the same place of its region's twin; what lies outside of a region, or cannot be copied, is
// refused with its own error.

#include <catch2/catch.hpp>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "tests/transport/contract.h"
#include "transport/bounced_transport.h"
#include "transport/loopback/loopback_transport.h"

namespace triptych::transport {
namespace {

using scheduler::Incarnation;

constexpr Incarnation kA{1}, kB{2};
constexpr size_t kRegionBytes = 16 << 20;  // what the contract's pieces take

// Copies when it is told to.
class StepCopier final : public PeerCopier {
 public:
  absl::StatusOr<std::string> Export(const base::MemoryRef&) override {
    return absl::UnimplementedError("nothing is mapped here");
  }
  absl::StatusOr<std::unique_ptr<MappedRegion>> Map(const std::string&, int64_t) override {
    return absl::UnimplementedError("nothing is mapped here");
  }
  void Copy(const base::MemoryRef& to, const base::MemoryRef& from, OnDone on_done) override {
    work_.push_back([this, to, from, on_done = std::move(on_done)] {
      if (!error_.ok()) return on_done(error_);
      std::memcpy(to.data, from.data, static_cast<size_t>(from.bytes));
      on_done(absl::OkStatus());
    });
  }
  int RunPending() {
    const auto count = static_cast<int>(work_.size());
    for (int i = 0; i < count; ++i) {
      const std::function<void()> copy = std::move(work_.front());
      work_.pop_front();
      copy();
    }
    return count;
  }
  void FailWith(absl::Status error) { error_ = std::move(error); }

 private:
  std::deque<std::function<void()>> work_;
  absl::Status error_;
};

// A "device" of ordinary memory and its twin.
struct Region {
  std::vector<uint8_t> device = std::vector<uint8_t>(kRegionBytes);
  std::vector<uint8_t> host = std::vector<uint8_t>(kRegionBytes);
  int64_t used = 0;

  TwinRegion ref() {
    return {base::HostRef(absl::MakeSpan(device)), base::HostRef(absl::MakeSpan(host))};
  }
  base::MemoryRef Take(size_t bytes) {
    const base::MemoryRef taken = ref().device.Sub(used, static_cast<int64_t>(bytes));
    used += static_cast<int64_t>(bytes);
    return taken;
  }
};

class BouncedPair final : public testing::TransportPair {
 public:
  BouncedPair() {
    a_.emplace(a_inner_.get(), &copier_, staging_.ref(), a_landing_.ref());
    b_.emplace(b_inner_.get(), &copier_, b_staging_.ref(), landing_.ref());
  }
  ~BouncedPair() override {
    RunAWhile();
    a_.reset();
    b_.reset();
    a_inner_.reset();
    b_inner_.reset();
    RunAWhile();
  }
  Transport& a() override { return *a_; }
  Transport& b() override { return *b_; }
  Incarnation a_id() const override { return kA; }
  Incarnation b_id() const override { return kB; }
  std::string b_address() const override { return "b"; }
  void KillB() override {
    copier_.RunPending();  // its end waits for copies under way
    b_.reset();
    b_inner_.reset();
  }
  bool RunUntil(const std::function<bool()>& done) override {
    while (!done() && copier_.RunPending() + hub_.RunPending() > 0) {
    }
    return done();
  }
  void RunAWhile() override {
    RunUntil([] { return false; });
  }
  base::MemoryRef NewStaging(size_t bytes) override { return staging_.Take(bytes); }
  base::MemoryRef NewLanding(size_t bytes) override { return landing_.Take(bytes); }

  StepCopier copier_;
  Region staging_, landing_, a_landing_, b_staging_;

 private:
  LoopbackHub hub_;
  std::unique_ptr<LoopbackEndpoint> a_inner_ = hub_.Connect(kA), b_inner_ = hub_.Connect(kB);
  std::optional<BouncedTransport> a_, b_;
};

struct Ends {
  absl::Status sent = absl::UnknownError("pending"), received = sent;
};

// How both ends of a piece ended, or that they did not: that they may do after the return.
Ends Move(BouncedPair& pair, const base::MemoryRef& from, const base::MemoryRef& to) {
  const auto ends = std::make_shared<Ends>();
  pair.b().Receive(kA, 1, to, [ends](absl::Status status) { ends->received = std::move(status); });
  pair.a().Send(kB, "b", 1, from, [ends](absl::Status status) { ends->sent = std::move(status); });
  pair.RunAWhile();
  return *ends;
}

TEST_CASE("BouncedTransport: keeps the transport contract", "[transport]") {
  testing::CheckTransportContract([] { return std::make_unique<BouncedPair>(); },
                                  testing::Reaches::kDeviceMemory);
}

TEST_CASE("BouncedTransport: a piece passes through its own place of the twins", "[transport]") {
  BouncedPair pair;
  pair.NewStaging(300);
  pair.NewLanding(500);
  const base::MemoryRef from = pair.NewStaging(100), to = pair.NewLanding(100);
  const std::vector<uint8_t> bytes(100, 7);
  pair.Write(from, bytes);
  const Ends ends = Move(pair, from, to);
  CHECK((ends.sent.ok() && ends.received.ok()));
  CHECK(pair.Read(to) == bytes);
  CHECK((pair.staging_.host[299] == 0 && pair.staging_.host[300] == 7));
  CHECK((pair.landing_.host[499] == 0 && pair.landing_.host[500] == 7));
}

TEST_CASE("BouncedTransport: memory outside of its region is refused at both ends", "[transport]") {
  BouncedPair pair;
  std::vector<uint8_t> elsewhere(64);
  const base::MemoryRef outside = base::HostRef(absl::MakeSpan(elsewhere));
  const Ends ends = Move(pair, outside, outside);
  CHECK(absl::IsFailedPrecondition(ends.sent));
  CHECK(absl::IsFailedPrecondition(ends.received));
}

TEST_CASE("BouncedTransport: a copy that fails ends its operation with the device's error",
          "[transport]") {
  BouncedPair pair;
  const base::MemoryRef from = pair.NewStaging(100), to = pair.NewLanding(100);
  pair.copier_.FailWith(absl::InternalError("the device failed"));
  const Ends ends = Move(pair, from, to);
  CHECK(absl::IsInternal(ends.sent));
  CHECK(ends.received == absl::UnknownError("pending"));  // nothing was sent
}

}  // namespace
}  // namespace triptych::transport
