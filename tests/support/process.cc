#include "tests/support/process.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <catch2/catch.hpp>

namespace triptych::testing {
namespace {

services::ChildProcess StartOrFail(std::vector<std::string> argv, std::string log_path) {
  auto child = services::ChildProcess::Start({std::move(argv), std::move(log_path)});
  INFO(child.status().ToString());
  REQUIRE(child.ok());
  return *std::move(child);
}

// Until the descriptor is readable or the deadline; false when that has passed.
bool WaitReadable(int descriptor, base::TimePoint until) {
  const base::RealClock clock;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock.Now()).count();
  pollfd waited = {descriptor, POLLIN, 0};
  return left > 0 && poll(&waited, 1, static_cast<int>(left)) > 0;
}

}  // namespace

Process::Process(std::vector<std::string> argv, std::string log_path)
    : child_(StartOrFail(std::move(argv), std::move(log_path))) {}

std::string Process::WaitForLine(const std::string& prefix, base::Duration timeout) {
  const base::RealClock clock;
  const base::TimePoint until = clock.Now() + timeout;
  while (child_.output_descriptor() >= 0 && WaitReadable(child_.output_descriptor(), until)) {
    for (const std::string& line : child_.ReadLines()) {
      if (line.rfind(prefix, 0) == 0) return line;
    }
  }
  FAIL("no line \"" << prefix << "...\" in time");
  return {};
}

bool Process::Terminate(base::Duration timeout) {
  const base::RealClock clock;
  child_.Signal(SIGTERM);
  if (!WaitReadable(child_.exit_descriptor(), clock.Now() + timeout)) return false;
  return child_.Reap().value_or(-1) == 0;
}

}  // namespace triptych::testing
