// Defended: floods of HTTP/2 frames are told from honest clients by counting alone, wherever the
// bytes are cut. Time is simulated.

#include "services/gateway/rpc/frame_meter.h"

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"

namespace triptych::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const std::string kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

std::string Frame(int type, int flags, const std::string& payload, uint32_t stream = 1) {
  const auto byte = [](size_t value) { return static_cast<char>(value & 0xff); };
  std::string frame = {byte(payload.size() >> 16), byte(payload.size() >> 8), byte(payload.size()),
                       byte(type), byte(flags)};
  for (int shift = 24; shift >= 0; shift -= 8) frame += byte(stream >> shift);
  return frame + payload;
}

const std::string kHeaders = Frame(1, 4, "abc"), kReset = Frame(3, 0, "1234"),
                  kPing = Frame(6, 0, "12345678"), kSettings = Frame(4, 0, ""),
                  kEmptyData = Frame(0, 0, ""), kContinuation = Frame(9, 0, "");

constexpr int64_t kBudget = 10 << 20;

struct Metered {
  base::TimePoint now{std::chrono::hours(1)};
  PayloadBudget budget{kBudget, kBudget / 2};
  AddressMeter of_address{FrameLimits(), &budget};
  FrameMeter meter{&of_address, "10.0.0.1", now};
  Metered() { REQUIRE(meter.Feed(kPreface, now) == nullptr); }
  // How many of `count` pass, one each `every`.
  int Passing(const std::string& frame, int count, base::Duration every) {
    for (int i = 0; i < count; ++i, now += every) {
      if (meter.Feed(frame, now) != nullptr) return i;
    }
    return count;
  }
};

TEST_CASE("FrameMeter: what is no HTTP/2 is found at its first wrong byte", "[gateway][security]") {
  PayloadBudget budget(kBudget);
  AddressMeter of_address(FrameLimits(), &budget);
  FrameMeter meter(&of_address, "10.0.0.1", base::TimePoint());
  CHECK(meter.Feed("PRI * HT", base::TimePoint()) == nullptr);
  CHECK_FALSE(meter.introduced());
  CHECK(meter.Feed("ML", base::TimePoint()) != nullptr);
  FrameMeter other(&of_address, "10.0.0.1", base::TimePoint());
  CHECK(other.Feed("GET / HTTP/1.1\r\n", base::TimePoint()) != nullptr);
}

TEST_CASE("FrameMeter: each flood is cut off in its first second", "[gateway][security]") {
  const base::Duration flood = std::chrono::microseconds(50);
  for (const std::string& frame :
       {kHeaders + kReset, kPing, kSettings, kEmptyData, Frame(2, 0, "12345"), Frame(77, 0, "")}) {
    INFO(static_cast<int>(frame[3]));
    Metered metered;
    CHECK(metered.Passing(frame, 20000, flood) < 1500);
  }
}

TEST_CASE("FrameMeter: a header block ends within its bound, and is not interrupted",
          "[gateway][security]") {
  Metered endless;
  REQUIRE(endless.meter.Feed(Frame(1, 0, std::string(1000, 'h')), endless.now) == nullptr);
  CHECK(endless.Passing(Frame(9, 0, std::string(1000, 'h')), 1000, milliseconds(10)) < 70);
  Metered empty;
  REQUIRE(empty.meter.Feed(Frame(1, 0, ""), empty.now) == nullptr);
  CHECK(empty.Passing(kContinuation, 10000, std::chrono::microseconds(1)) < 1000);
  Metered interrupted;
  REQUIRE(interrupted.meter.Feed(Frame(1, 0, "h"), interrupted.now) == nullptr);
  CHECK(interrupted.meter.Feed(kPing, interrupted.now) != nullptr);
  Metered stray;
  CHECK(stray.meter.Feed(kContinuation, stray.now) != nullptr);
}

TEST_CASE("FrameMeter: a busy honest client passes for an hour", "[gateway][security]") {
  Metered metered;
  // 1,000 requests a second, of which 100 are cancelled; pictures, windows, pings, settings.
  for (int ms = 0; ms < 60'000; ++ms) {
    metered.now += milliseconds(1);
    std::string bytes = kHeaders + Frame(0, 1, std::string(100, 'd'));
    for (int i = 0; i < 5; ++i) bytes += Frame(8, 0, "1234");
    if (ms % 10 == 0) bytes += kReset;
    if (ms % 50 == 0) bytes += kPing + Frame(4, 1, "");
    REQUIRE(metered.meter.Feed(bytes, metered.now) == nullptr);
  }
}

TEST_CASE("FrameMeter: connecting again after a cut buys nothing, and costs no other address",
          "[gateway][security]") {
  base::TimePoint now{std::chrono::hours(1)};
  PayloadBudget budget(kBudget);
  AddressMeter of_address(FrameLimits(), &budget);
  int passed = 0;
  // For 10 s a connection every 10 ms, each good for what it may.
  for (int i = 0; i < 1000; ++i, now += milliseconds(10)) {
    FrameMeter meter(&of_address, "10.0.0.1", now);
    REQUIRE(meter.Feed(kPreface, now) == nullptr);
    while (meter.Feed(kHeaders + kReset, now) == nullptr) ++passed;
  }
  CHECK(passed < 3100);
  FrameMeter other(&of_address, "10.0.0.2", now);
  CHECK(other.Feed(kPreface + kHeaders + kReset, now) == nullptr);
}

TEST_CASE("FrameMeter: calls without their request are bounded, of a connection and an address",
          "[gateway][security]") {
  const base::TimePoint now{std::chrono::hours(1)};
  PayloadBudget budget(kBudget);
  AddressMeter of_address(FrameLimits(), &budget);
  std::vector<std::unique_ptr<FrameMeter>> meters;
  const auto open = [&] {
    meters.push_back(std::make_unique<FrameMeter>(&of_address, "10.0.0.1", now));
    REQUIRE(meters.back()->Feed(kPreface, now) == nullptr);
    uint32_t calls = 0;
    while (calls < 2000 && meters.back()->Feed(Frame(1, 4, "abc", 2 * calls + 1), now) == nullptr) {
      ++calls;
    }
    return calls;
  };
  for (int i = 0; i < 4; ++i) CHECK(open() == 256);
  CHECK(open() == 0);
  meters.clear();
  CHECK(open() == 256);
  // Those that end make room.
  FrameMeter busy(&of_address, "10.0.0.1", now);
  REQUIRE(busy.Feed(kPreface, now) == nullptr);
  for (uint32_t call = 0; call < 1000; ++call) {
    REQUIRE(busy.Feed(Frame(1, 4, "abc", 2 * call + 1), now) == nullptr);
    REQUIRE(busy.Feed(Frame(0, 1, "data", 2 * call + 1), now) == nullptr);
  }
}

TEST_CASE("FrameMeter: a request counts in the budget while it comes, within its address's share",
          "[gateway][security]") {
  Metered metered;
  const std::string mebibyte = Frame(0, 0, std::string(1 << 20, 'd'));
  REQUIRE(metered.meter.Feed(kHeaders, metered.now) == nullptr);
  CHECK(metered.Passing(mebibyte, 3, seconds(0)) == 3);
  CHECK(metered.budget.free_bytes() == kBudget - (3 << 20));
  // Whole: its reader charges it now.
  CHECK(metered.meter.Feed(Frame(0, 1, "end"), metered.now) == nullptr);
  CHECK(metered.budget.free_bytes() == kBudget);
  REQUIRE(metered.meter.Feed(Frame(1, 4, "abc", 3), metered.now) == nullptr);
  CHECK(metered.Passing(Frame(0, 0, std::string(1 << 20, 'd'), 3), 100, seconds(0)) == 5);
}

TEST_CASE("AddressMeter: who was quiet is forgotten, who was not is not", "[gateway][security]") {
  base::TimePoint now{std::chrono::hours(1)};
  PayloadBudget budget(kBudget);
  AddressMeter of_address(FrameLimits(), &budget);
  while (of_address.Spend("flood", FrameKind::kResets, now)) {
  }
  for (int i = 0; i < 200'000; ++i, now += std::chrono::microseconds(5)) {
    of_address.Spend(std::to_string(i), FrameKind::kConnections, now);
  }
  CHECK(of_address.size() <= 1 << 16);
  now += milliseconds(1);
  int again = 0;
  while (of_address.Spend("flood", FrameKind::kResets, now)) ++again;
  CHECK(again < 500);
}

TEST_CASE("FrameMeter: where the bytes are cut makes no difference", "[gateway][security]") {
  constexpr uint64_t kSeed = 3;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  for (int round = 0; round < 200; ++round) {
    std::string bytes = kPreface;
    for (int i = 0; i < 50; ++i) {
      bytes += Frame(static_cast<int>(random.Below(11)), static_cast<int>(random.Below(8)),
                     std::string(random.Below(60), 'x'));
    }
    const base::TimePoint now(seconds(1));
    PayloadBudget budget(kBudget);
    AddressMeter one(FrameLimits(), &budget), other(FrameLimits(), &budget);
    FrameMeter whole(&one, "10.0.0.1", now), cut(&other, "10.0.0.1", now);
    const char* const expected = whole.Feed(bytes, now);
    const char* found = nullptr;
    for (size_t at = 0; at < bytes.size() && found == nullptr;) {
      const size_t size = 1 + random.Below(20);
      found = cut.Feed(absl::string_view(bytes).substr(at, size), now);
      at += size;
    }
    REQUIRE((expected == nullptr) == (found == nullptr));
  }
}

}  // namespace
}  // namespace triptych::services
