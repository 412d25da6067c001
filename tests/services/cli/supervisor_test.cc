// Defends what a person relies on when processes die: they come back, those that never worked do
// not, and a stop ends all of them in order and in time. Children are small shell scripts.

#include "services/cli/supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "services/cli/worker_groups.h"

namespace triptych::services {
namespace {

constexpr base::Duration kPatience = std::chrono::seconds(10);

// A folder of its own, removed at the end.
class Scratch {
 public:
  Scratch() {
    std::string pattern = "/tmp/triptych-test-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  std::string Read(const std::string& name) const {
    std::ifstream in(File(name));
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }

 private:
  std::string path_;
};

ChildSpec Script(const std::string& name, const std::string& text, int stop_rank = 0) {
  return {.name = name,
          .roles = "test",
          .command = {.argv = {"/bin/sh", "-c", text}, .log_path = "/dev/null"},
          .stop_rank = stop_rank};
}

// Writes its name when told to stop, then ends.
std::string ListenUntilStopped(const std::string& name, const std::string& file) {
  return "trap 'echo " + name + " >> " + file + "; exit 0' TERM; echo listening grpc=" + name +
         ":1 admin=" + name + ":2; tail -f /dev/null & wait";
}

// A child that waits without spending the processor.
constexpr char kListen[] = "echo listening grpc=a:1 admin=a:2; exec tail -f /dev/null";

ChildStatus StatusOf(const Supervisor& supervisor, const std::string& name) {
  for (const ChildStatus& status : supervisor.Snapshot()) {
    if (status.name == name) return status;
  }
  FAIL("no child " << name);
  return {};
}

template <typename Condition>
bool Eventually(Supervisor* supervisor, const base::Clock& clock, Condition condition) {
  const base::TimePoint until = clock.Now() + kPatience;
  while (!condition()) {
    if (clock.Now() >= until) return false;
    supervisor->WaitForChange(std::chrono::milliseconds(20));
  }
  return true;
}

TEST_CASE("Supervisor: the addresses that a child prints are its own", "[services][cli]") {
  base::RealClock clock;
  Supervisor supervisor(clock, {}, {});
  supervisor.Add(Script("a", kListen));
  const auto addresses = supervisor.WaitListening("a", kPatience);
  REQUIRE(addresses.ok());
  CHECK(addresses->at("grpc") == "a:1");
  CHECK(addresses->at("admin") == "a:2");
  CHECK(StatusOf(supervisor, "a").state == ChildState::kListening);
}

TEST_CASE("Supervisor: a child that is killed is started again", "[services][cli]") {
  base::RealClock clock;
  Supervisor supervisor(clock, {}, {});
  supervisor.Add(Script("a", kListen));
  REQUIRE(supervisor.WaitListening("a", kPatience).ok());
  const pid_t first = StatusOf(supervisor, "a").pid;
  for (int restarts = 1; restarts <= 3; ++restarts) {
    kill(StatusOf(supervisor, "a").pid, SIGKILL);
    REQUIRE(Eventually(&supervisor, clock, [&] {
      const ChildStatus status = StatusOf(supervisor, "a");
      return status.restarts == restarts && status.state == ChildState::kListening;
    }));
  }
  CHECK(StatusOf(supervisor, "a").pid != first);
  CHECK(StatusOf(supervisor, "a").last_exit == "signal 9 (Killed)");
}

TEST_CASE("Supervisor: a restart uses the command that was set last", "[services][cli]") {
  base::RealClock clock;
  Supervisor supervisor(clock, {}, {});
  supervisor.Add(Script("a", kListen));
  REQUIRE(supervisor.WaitListening("a", kPatience).ok());
  supervisor.SetCommand("a", {"/bin/sh", "-c", "echo listening grpc=b:7; exec tail -f /dev/null"});
  kill(StatusOf(supervisor, "a").pid, SIGKILL);
  CHECK(Eventually(&supervisor, clock, [&] {
    const ChildStatus status = StatusOf(supervisor, "a");
    return status.state == ChildState::kListening && status.addresses.at("grpc") == "b:7";
  }));
}

TEST_CASE("Supervisor: deaths one after another are spaced by a growing back-off",
          "[services][cli]") {
  base::RealClock clock;
  SupervisorOptions options{.first_backoff = std::chrono::milliseconds(20),
                            .longest_backoff = std::chrono::milliseconds(40)};
  Supervisor supervisor(clock, options, {});
  const base::TimePoint begin = clock.Now();
  supervisor.Add(Script("a", "echo listening grpc=a:1"));
  REQUIRE(Eventually(&supervisor, clock, [&] { return StatusOf(supervisor, "a").restarts >= 4; }));
  // 20 + 40 + 40 + 40 ms at least.
  CHECK(clock.Now() - begin >= std::chrono::milliseconds(140));
}

TEST_CASE("Supervisor: a child that ends before it listens has failed for good",
          "[services][cli]") {
  base::RealClock clock;
  Supervisor supervisor(clock, {}, {});
  supervisor.Add(Script("a", "exit 3"));
  const auto addresses = supervisor.WaitListening("a", kPatience);
  CHECK(addresses.status().code() == absl::StatusCode::kUnavailable);
  CHECK_THAT(std::string(addresses.status().message()), Catch::Contains("exit code 3"));
  CHECK(StatusOf(supervisor, "a").state == ChildState::kFailed);
}

TEST_CASE("Supervisor: a child that ends at its start is quoted", "[services][cli]") {
  const std::string log = absl::StrCat("/tmp/triptych-last-words-", getpid());
  base::RealClock clock;
  Supervisor supervisor(clock, {}, {});
  const char script[] = "echo a long story >&2; echo 'port 80: taken' >&2; echo >&2; exit 1";
  supervisor.Add({.name = "a", .roles = "", .command = {{"/bin/sh", "-c", script}, log}});
  const auto addresses = supervisor.WaitListening("a", kPatience);
  const std::string said(addresses.status().message());
  CHECK_THAT(said, Catch::Contains("(exit code 1): port 80: taken\n"));
  CHECK_THAT(said, Catch::Contains(log));
  CHECK(unlink(log.c_str()) == 0);
  CHECK(LastLine(log) == "it wrote nothing");
}

TEST_CASE("Supervisor: a binary that is not there is reported", "[services][cli]") {
  base::RealClock clock;
  Supervisor supervisor(clock, {}, {});
  supervisor.Add({.name = "a", .roles = "", .command = {{"/nonexistent/binary"}, ""}});
  const auto addresses = supervisor.WaitListening("a", kPatience);
  CHECK(addresses.status().code() == absl::StatusCode::kUnavailable);
}

TEST_CASE("Supervisor: a stop ends the children rank by rank", "[services][cli]") {
  const Scratch scratch;
  base::RealClock clock;
  Supervisor supervisor(clock, {}, {});
  const std::string order = scratch.File("order");
  // Added in another order than they stop in.
  supervisor.Add(Script("scheduler", ListenUntilStopped("scheduler", order), 2));
  supervisor.Add(Script("gateway", ListenUntilStopped("gateway", order), 0));
  supervisor.Add(Script("worker", ListenUntilStopped("worker", order), 1));
  for (const char* name : {"scheduler", "gateway", "worker"}) {
    REQUIRE(supervisor.WaitListening(name, kPatience).ok());
  }
  supervisor.Stop();
  CHECK(scratch.Read("order") == "gateway\nworker\nscheduler\n");
}

TEST_CASE("Supervisor: what ignores SIGTERM is killed after the grace", "[services][cli]") {
  base::RealClock clock;
  Supervisor supervisor(clock, {.stop_grace = std::chrono::milliseconds(300)}, {});
  supervisor.Add(Script("a", std::string("trap '' TERM; ") + kListen));
  REQUIRE(supervisor.WaitListening("a", kPatience).ok());
  const pid_t pid = StatusOf(supervisor, "a").pid;
  const base::TimePoint begin = clock.Now();
  supervisor.Stop();
  CHECK(clock.Now() - begin >= std::chrono::milliseconds(300));
  CHECK(clock.Now() - begin < std::chrono::seconds(5));
  CHECK(kill(pid, 0) != 0);
}

TEST_CASE("Worker groups: joined roles come in the order of a request's life", "[services][cli]") {
  const auto groups = ParseWorkers("prefill+encode=2,decode=3");
  REQUIRE(groups.ok());
  REQUIRE(groups->size() == 2);
  CHECK((*groups)[0].roles == "encode+prefill");
  CHECK((*groups)[0].count == 2);
  CHECK((*groups)[1].roles == "decode");
  CHECK((*groups)[1].count == 3);
  CHECK(ParseWorkers("encode+prefill+decode")->front().count == 1);
}

TEST_CASE("Worker groups: a topology that cannot answer is refused", "[services][cli]") {
  for (const char* text :
       {"", "encode=1,prefill=1", "encode=1,prefill=1,decode=0", "encode=1,prefill=1,decode=65",
        "encode=1,prefill=1,decode=x", "encode=1,prefill=1,decode=1,decode=2",
        "encode=1=2,prefill,decode", "encode+encoder=1,prefill=1,decode=1"}) {
    CAPTURE(text);
    CHECK(ParseWorkers(text).status().code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace triptych::services
