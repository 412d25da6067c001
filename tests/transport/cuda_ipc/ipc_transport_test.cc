// Defended: the channel of cuda_ipc keeps the transport contract over memory that processes share;
// only who was invited is shown the region, and once; what a peer says is checked against the
// region; a piece whose sender died or was given up is never let in, and its landing memory is held
// until the copy is over; nothing is left behind.

#include "transport/cuda_ipc/ipc_transport.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <future>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "tests/transport/contract.h"
#include "tests/transport/cuda_ipc/host_copier.h"

namespace triptych::transport {
namespace {

using scheduler::Incarnation;
using testing::HostCopier;
using testing::SharedMemory;

constexpr Incarnation kA{21}, kB{22};
constexpr int64_t kRegion = int64_t{32} << 20;
constexpr auto kLong = std::chrono::seconds(20);

// Waits without sleeping for what another thread will have done.
bool WaitFor(const std::function<bool()>& done, std::chrono::milliseconds at_most = kLong) {
  const base::RealClock clock;
  const base::TimePoint end = clock.Now() + at_most;
  std::promise<void> never;
  const std::future<void> future = never.get_future();
  while (!done() && clock.Now() < end) future.wait_for(std::chrono::milliseconds(1));
  return done();
}

// How often something was said, and what first.
class Told {
 public:
  std::function<void(absl::Status)> Sink() {
    return [this](absl::Status status) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (count_++ == 0) first_ = std::move(status);
    };
  }
  int count() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return count_;
  }
  absl::StatusCode Wait() const {
    if (!WaitFor([this] { return count() > 0; })) return absl::StatusCode::kUnknown;
    std::lock_guard<std::mutex> lock(mutex_);
    return first_.code();
  }

 private:
  mutable std::mutex mutex_;
  int count_ = 0;
  absl::Status first_;
};

// One worker's end. Channels of tests that run beside each other differ by process and number.
struct Endpoint {
  explicit Endpoint(Incarnation self, int64_t bytes = kRegion)
      : region(bytes), landing(bytes), copier(region) {
    static std::atomic<int> number{0};
    auto made =
        IpcTransport::Start({.self = self,
                             .channel = absl::StrCat("triptych-test-", getpid(), "-", ++number),
                             .staging = region.ref(),
                             .random = base::RandomBits64},
                            clock, &copier);
    REQUIRE(made.ok());
    transport = *std::move(made);
    this->self = self;
  }
  // Begins to receive from `from`; whether its region was shown.
  absl::StatusCode ReceiveFrom(Endpoint& from) {
    transport->Connect(from.self, from.transport->channel(), from.transport->TokenFor(self),
                       connected.Sink());
    return connected.Wait();
  }

  base::RealClock clock;
  SharedMemory region, landing;
  HostCopier copier;
  Incarnation self;
  Told connected;
  std::unique_ptr<IpcTransport> transport;
};

class IpcPair final : public testing::TransportPair {
 public:
  IpcPair() : a_(kA), b_(std::make_unique<Endpoint>(kB)), landing_(kRegion) {
    REQUIRE(b_->ReceiveFrom(a_) == absl::StatusCode::kOk);
  }
  Transport& a() override { return *a_.transport; }
  Transport& b() override { return *b_->transport; }
  Incarnation a_id() const override { return kA; }
  Incarnation b_id() const override { return kB; }
  std::string b_address() const override { return ""; }
  void KillB() override { b_.reset(); }
  bool RunUntil(const std::function<bool()>& done) override { return WaitFor(done); }
  void RunAWhile() override {
    WaitFor([] { return false; }, std::chrono::milliseconds(100));
  }
  base::MemoryRef NewStaging(size_t bytes) override {
    return Next(a_.region.ref(), &staged_, bytes);
  }
  base::MemoryRef NewLanding(size_t bytes) override {
    return Next(landing_.ref(), &landed_, bytes);
  }

 private:
  static base::MemoryRef Next(const base::MemoryRef& region, int64_t* used, size_t bytes) {
    const base::MemoryRef out = region.Sub(*used, static_cast<int64_t>(bytes));
    *used += out.bytes;
    return out;
  }
  Endpoint a_;
  std::unique_ptr<Endpoint> b_;
  SharedMemory landing_;
  int64_t staged_ = 0, landed_ = 0;
};

// Declared before the endpoints, where it may end with them.
struct OnePiece {
  Told sent, received;
  void Send(Endpoint& from, Endpoint& to, uint64_t sequence, int64_t bytes = 4096) {
    from.transport->Send(to.self, "", sequence, from.region.ref().Sub(0, bytes), sent.Sink());
  }
  void Receive(Endpoint& at, Incarnation from, uint64_t sequence, int64_t bytes = 4096) {
    at.transport->Receive(from, sequence, at.landing.ref().Sub(0, bytes), received.Sink());
  }
};

TEST_CASE("IpcTransport: keeps the transport contract", "[transport][cuda_ipc]") {
  testing::CheckTransportContract([] { return std::make_unique<IpcPair>(); });
}

TEST_CASE("IpcTransport: shows its region to whom it invited, and once", "[transport][cuda_ipc]") {
  Endpoint a(kA), b(kB), c(Incarnation(23));
  const std::string token = a.transport->TokenFor(kB);
  CHECK(token == a.transport->TokenFor(kB));
  SECTION("a wrong token is turned away") {
    b.transport->Connect(kA, a.transport->channel(), std::string(32, '0'), b.connected.Sink());
    CHECK(b.connected.Wait() == absl::StatusCode::kUnavailable);
  }
  SECTION("an empty token is turned away, before and after the true one was used") {
    CHECK(b.ReceiveFrom(a) == absl::StatusCode::kOk);
    CHECK(a.transport->TokenFor(kB).empty());
    Endpoint again(kB);
    again.transport->Connect(kA, a.transport->channel(), "", again.connected.Sink());
    CHECK(again.connected.Wait() == absl::StatusCode::kUnavailable);
  }
  SECTION("another's token is turned away") {
    c.transport->Connect(kA, a.transport->channel(), token, c.connected.Sink());
    CHECK(c.connected.Wait() == absl::StatusCode::kUnavailable);
    CHECK(b.ReceiveFrom(a) == absl::StatusCode::kOk);
  }
  SECTION("the wrong incarnation is turned away") {
    b.transport->Connect(c.self, a.transport->channel(), token, b.connected.Sink());
    CHECK(b.connected.Wait() == absl::StatusCode::kUnavailable);
  }
  SECTION("nobody listens") {
    b.transport->Connect(kA, "triptych-nobody", token, b.connected.Sink());
    CHECK(b.connected.Wait() == absl::StatusCode::kUnavailable);
  }
}

TEST_CASE("IpcTransport: sends nothing from outside of its region", "[transport][cuda_ipc]") {
  Endpoint a(kA), b(kB);
  REQUIRE(b.ReceiveFrom(a) == absl::StatusCode::kOk);
  std::vector<uint8_t> elsewhere(100);
  Told sent;
  a.transport->Send(kB, "", 1, base::HostRef(absl::MakeSpan(elsewhere)), sent.Sink());
  CHECK(sent.Wait() == absl::StatusCode::kFailedPrecondition);
}

// A sender that says what it likes; the transport under test receives from it.
class HostileSender {
 public:
  explicit HostileSender(Endpoint& victim) : victim_(victim) {
    const std::string name = absl::StrCat("triptych-hostile-", getpid());
    auto listener = IpcSocket::Listen(name);
    REQUIRE(listener.ok());
    victim.transport->Connect(kA, name, "token", victim.connected.Sink());
    std::optional<IpcSocket> accepted;
    REQUIRE(WaitFor([&] {
      if (!accepted.has_value()) accepted = listener->Accept();
      return accepted.has_value();
    }));
    socket_ = *std::move(accepted);
  }
  void ShowRegion() {
    IpcMessage message{.kind = IpcMessage::Kind::kRegion, .bytes = region_.ref().bytes};
    message.set_text(region_.path());
    REQUIRE(socket_.Send(message) == IpcSocket::Result::kDone);
    REQUIRE(victim_.connected.Wait() == absl::StatusCode::kOk);
  }
  void Say(const IpcMessage& message) { socket_.Send(message); }

 private:
  Endpoint& victim_;
  SharedMemory region_{8192};
  IpcSocket socket_;
};

TEST_CASE("IpcTransport: a piece that is not of the region ends the channel",
          "[transport][cuda_ipc]") {
  Endpoint b(kB);
  HostileSender sender(b);
  sender.ShowRegion();
  OnePiece piece;
  piece.Receive(b, kA, 1);
  const auto [offset, bytes] = GENERATE(table<int64_t, int64_t>({{8192, 1},
                                                                 {4097, 4096},
                                                                 {-2, 4096},
                                                                 {INT64_MAX, 4096},
                                                                 {4096, INT64_MAX},
                                                                 {0, -1},
                                                                 {INT64_MIN, INT64_MIN}}));
  sender.Say({.kind = IpcMessage::Kind::kPiece, .sequence = 1, .offset = offset, .bytes = bytes});
  CHECK(piece.received.Wait() == absl::StatusCode::kUnavailable);
  CHECK(WaitFor([&] { return b.connected.count() == 2; }));
}

TEST_CASE("IpcTransport: nonsense ends the channel and nothing else", "[transport][cuda_ipc]") {
  const uint64_t seed = GENERATE(range(1, 40));
  INFO("seed " << seed);
  base::SeededRandom random(seed);
  OnePiece piece;
  Endpoint b(kB, 1 << 16);
  HostileSender sender(b);
  if (random.Below(2) == 0) sender.ShowRegion();
  piece.Receive(b, kA, 1);
  for (int i = 0; i < 20; ++i) {
    IpcMessage message;
    message.version = random.Below(8) == 0 ? static_cast<uint32_t>(random.Next()) : 1;
    message.kind = static_cast<IpcMessage::Kind>(random.Below(6));
    message.sequence = random.Below(4);
    message.offset = static_cast<int64_t>(random.Next());
    message.bytes = random.Below(2) == 0 ? 4096 : static_cast<int64_t>(random.Next());
    message.text_bytes = static_cast<uint32_t>(random.Next());
    sender.Say(message);
  }
  piece.received.Wait();
  CHECK(piece.received.count() <= 1);
}

TEST_CASE("IpcTransport: a sender that shows no region is given up", "[transport][cuda_ipc]") {
  Endpoint b(kB);
  HostileSender sender(b);
  OnePiece piece;
  piece.Receive(b, kA, 1);
  CHECK(b.connected.Wait() == absl::StatusCode::kUnavailable);
  CHECK(piece.received.Wait() == absl::StatusCode::kUnavailable);
}

TEST_CASE("IpcTransport: landing memory is held until the copy into it is over",
          "[transport][cuda_ipc]") {
  OnePiece copying, waiting;
  auto a = std::make_unique<Endpoint>(kA);
  Endpoint b(kB);
  REQUIRE(b.ReceiveFrom(*a) == absl::StatusCode::kOk);
  b.copier.Hold();
  copying.Receive(b, kA, 1);
  waiting.Receive(b, kA, 2);
  copying.Send(*a, b, 1);
  WaitFor([] { return false; }, std::chrono::milliseconds(50));
  absl::StatusCode end = absl::StatusCode::kAborted;
  SECTION("when the receiver gives up") { b.transport->Abort(kA); }
  SECTION("when the sender dies") {
    end = absl::StatusCode::kUnavailable;
    a.reset();
  }
  SECTION("when the sender gives up") {
    end = absl::StatusCode::kUnavailable;
    a->transport->Abort(kB);
    CHECK(copying.sent.Wait() == absl::StatusCode::kAborted);
  }
  CHECK(waiting.received.Wait() == end);
  CHECK(copying.received.count() == 0);
  b.copier.Release();
  CHECK(copying.received.Wait() == end);  // although every byte was read
  CHECK(copying.received.count() == 1);
}

TEST_CASE("IpcTransport: a piece that is said again while it is read is read once",
          "[transport][cuda_ipc]") {
  Endpoint a(kA), b(kB);
  REQUIRE(b.ReceiveFrom(a) == absl::StatusCode::kOk);
  OnePiece piece;
  b.copier.Hold();
  piece.Receive(b, kA, 1);
  piece.Send(a, b, 1);
  piece.Send(a, b, 1);
  WaitFor([] { return false; }, std::chrono::milliseconds(50));
  CHECK(piece.sent.count() == 0);
  b.copier.Release();
  CHECK(WaitFor([&] { return piece.sent.count() == 2; }));
  CHECK(piece.received.Wait() == absl::StatusCode::kOk);
  CHECK(piece.received.count() == 1);
  piece.Send(a, b, 1);  // and once more when it is over
  CHECK(WaitFor([&] { return piece.sent.count() == 3; }));
}

TEST_CASE("IpcTransport: ends and begins a thousand times, leaving nothing open",
          "[transport][cuda_ipc][slow]") {
  const auto open_files = [] {
    const std::filesystem::directory_iterator files("/proc/self/fd");
    return std::distance(begin(files), end(files));
  };
  Endpoint b(kB, 1 << 16);
  const auto before = open_files();
  for (uint64_t i = 1; i <= 1000; ++i) {
    Endpoint a(Incarnation(1000 + i), 1 << 16);
    Told connected;
    OnePiece first, second;
    b.transport->Connect(a.self, a.transport->channel(), a.transport->TokenFor(kB),
                         connected.Sink());
    REQUIRE(connected.Wait() == absl::StatusCode::kOk);
    first.Receive(b, a.self, 1);
    second.Receive(b, a.self, 2);
    first.Send(a, b, 1);
    if (i % 2 == 0) REQUIRE(first.received.Wait() == absl::StatusCode::kOk);
    b.transport->Abort(a.self);
    first.received.Wait();
    REQUIRE(second.received.Wait() == absl::StatusCode::kAborted);
    first.sent.Wait();
  }
  CHECK(WaitFor([&] { return open_files() <= before; }));
}

// Sends piece after piece until it is killed.
[[noreturn]] void SendForever(const std::string& channel_name, int to_parent) {
  base::RealClock clock;
  SharedMemory region(1 << 20);
  HostCopier copier(region);
  auto transport = IpcTransport::Start(
      {.self = kA, .channel = channel_name, .staging = region.ref(), .random = base::RandomBits64},
      clock, &copier);
  if (!transport.ok()) _exit(2);
  const std::string token = (*transport)->TokenFor(kB);
  if (write(to_parent, token.data(), token.size()) != static_cast<ssize_t>(token.size())) _exit(3);
  for (uint64_t sequence = 1;; ++sequence) {
    const absl::Span<uint8_t> bytes = region.ref().HostBytes();
    std::fill(bytes.begin(), bytes.end(), static_cast<uint8_t>(sequence));
    while (true) {  // until the receiver has connected
      Told sent;
      (*transport)->Send(kB, "", sequence, region.ref(), sent.Sink());
      if (sent.Wait() == absl::StatusCode::kOk) break;
    }
  }
}

TEST_CASE("IpcTransport: a sender killed in the middle is noticed, and its successor serves",
          "[transport][cuda_ipc][slow]") {
  for (int round = 0; round < 20; ++round) {
    const std::string name = absl::StrCat("triptych-killed-", getpid(), "-", round);
    int pipes[2];
    REQUIRE(pipe(pipes) == 0);
    const pid_t child = fork();  // no thread of this process is running
    if (child == 0) SendForever(name, pipes[1]);
    std::string token(32, ' ');
    REQUIRE(read(pipes[0], token.data(), token.size()) == 32);
    {
      Endpoint b(kB, 1 << 20);
      b.transport->Connect(kA, name, token, b.connected.Sink());
      REQUIRE(b.connected.Wait() == absl::StatusCode::kOk);
      base::SeededRandom random(static_cast<uint64_t>(round + 1));
      const uint64_t last = 3 + random.Below(20);
      for (uint64_t sequence = 1;; ++sequence) {
        OnePiece piece;
        piece.Receive(b, kA, sequence, 1 << 20);
        if (sequence == last) kill(child, SIGKILL);
        const absl::StatusCode end = piece.received.Wait();
        if (end != absl::StatusCode::kOk) {
          CHECK(end == absl::StatusCode::kUnavailable);
          break;
        }
        const absl::Span<uint8_t> landed = b.landing.ref().HostBytes();
        REQUIRE(std::count(landed.begin(), landed.end(), static_cast<uint8_t>(sequence)) ==
                int64_t{1} << 20);
      }
    }
    waitpid(child, nullptr, 0);
    close(pipes[0]);
    close(pipes[1]);
  }
}

}  // namespace
}  // namespace triptych::transport
