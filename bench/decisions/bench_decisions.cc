// How long the cluster scheduler takes to decide, on one core: every message of requests with one
// picture each, on 100, 1,000 and 10,000 workers; reports while requests wait; everybody's hello.
//
//   build/bin/bench_decisions [WORKERS...]

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "scheduler/cluster/cluster_scheduler.h"

namespace triptych::scheduler {
namespace {

// Time that this thread had the core: on a busy machine the wall clock counts others' turns.
struct Clock {
  using duration = std::chrono::nanoseconds;
  static duration Now() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  }
};
using std::chrono::milliseconds;

// What looking at the clock twice costs, which is part of every difference.
Clock::duration LookingAtTheClock() {
  std::vector<Clock::duration> looks;
  for (int i = 0; i < 1001; ++i) {
    const Clock::duration begin = Clock::Now();
    looks.push_back(Clock::Now() - begin);
  }
  std::nth_element(looks.begin(), looks.begin() + 500, looks.end());
  return looks[500];
}

constexpr Incarnation kGateway(1 << 20);
constexpr double kMicro = 1e-3;  // of nanoseconds

enum class Layout { kSplit, kAllRoles, kSplitWithOneBoth };
enum class Speeds { kKnown, kUnknown };

class Bench {
 public:
  Bench(int workers, Layout layout, Speeds speeds)
      : scheduler_(ClusterConfig(), Incarnation(7)), speeds_(speeds) {
    GatewayHello hello{.name = "gateway", .incarnation = kGateway, .known_peers = {kGateway}};
    Timed([&] { scheduler_.OnGatewayConnected(hello, now_); });
    for (int i = 0; i < workers; ++i) {
      Roles roles;
      const bool both = layout == Layout::kSplitWithOneBoth && i == 0;
      if (layout == Layout::kAllRoles) {
        roles.bits = 7;
      } else {
        roles.add(both ? Stage::kPrefill : static_cast<Stage>(i % kNumStages));
        if (both) roles.add(Stage::kDecode);
      }
      workers_.push_back({.roles = roles, .free = {4096, 1 << 16, 64}});
      Timed([&] {
        scheduler_.OnWorkerConnected({.profile = Profile(i), .report = Report(i)}, now_);
      });
    }
    connect_ = std::exchange(spent_, {});
    for (int i = 0; i < workers; ++i) Say(i, Report(i));
    spent_ = {};
  }

  // `live` requests at any time; the time of all calls for one request is one sample.
  void Serve(int requests, int live) {
    std::deque<uint64_t> running;
    std::vector<double> samples;
    for (int i = 0; i < requests + live; ++i) {
      spent_ = {};
      if (i < requests) {
        running.push_back(Begin());
      }
      const auto begun = spent_;
      if (i >= live && !running.empty()) {
        spent_ = begun_[running.front()];
        Finish(running.front());
        running.pop_front();
        samples.push_back(std::chrono::duration<double, std::nano>(spent_).count() * kMicro);
      }
      if (i < requests) begun_[running.back()] = begun;
      if (i % 16 == 0) Refresh();
    }
    std::sort(samples.begin(), samples.end());
    double sum = 0;
    for (double sample : samples) sum += sample;
    const double decision = sum / static_cast<double>(samples.size()) / 3;
    std::printf("  %.2f us a decision (%.0f/s), a request P50 %.1f us, P99 %.1f us\n", decision,
                1e6 / decision, samples[samples.size() / 2], samples[samples.size() * 99 / 100]);
  }

  // Reports of all while `waiting` requests find no decode worker.
  void ReportsWhileFull(int waiting) {
    for (Worker& worker : workers_) {
      if (worker.roles.has(Stage::kDecode)) worker.free = {};
    }
    for (size_t i = 0; i < workers_.size(); ++i) Say(i, Report(i));
    for (int i = 0; i < waiting; ++i) Begin(/*items=*/0);
    spent_ = {};
    const int rounds = std::max<int>(1, 20000 / static_cast<int>(workers_.size()));
    for (int round = 0; round < rounds; ++round) {
      for (size_t i = 0; i < workers_.size(); ++i) Say(i, Report(i));
    }
    const double each = std::chrono::duration<double, std::nano>(spent_).count() * kMicro /
                        static_cast<double>(rounds * workers_.size());
    std::printf("  a report while %d wait: %.2f us\n", waiting, each);
  }

  void PrintConnect() const {
    std::printf("  connect all: %.1f ms, %.2f MB of membership to a gateway\n",
                std::chrono::duration<double, std::milli>(connect_).count(),
                static_cast<double>(membership_bytes_) / 1e6);
  }

 private:
  struct Worker {
    Roles roles;
    Amount free;
    uint64_t handled = 0;
  };
  struct Request {
    TaskId prefill, encode, decode;
    size_t at_prefill = 0, at_encode = 0, at_decode = 0;
  };

  WorkerProfile Profile(size_t i) const {
    WorkerProfile profile{.name = "worker",
                          .incarnation = Incarnation(i + 1),
                          .roles = workers_[i].roles,
                          .fingerprint = "model",
                          .address = "host",
                          .kv_block_tokens = 16,
                          .kv_blocks = 4096,
                          .embedding_slots = 1 << 16,
                          .max_sequences = 64,
                          .max_encodes = 64};
    return profile;
  }
  WorkerReport Report(size_t i) const {
    const Worker& worker = workers_[i];
    WorkerReport report{.free_kv_blocks = worker.free.kv_blocks,
                        .free_embedding_slots = worker.free.embedding_slots,
                        .free_sequences = worker.free.sequences,
                        .handled_sequence = worker.handled};
    if (speeds_ == Speeds::kUnknown) return report;
    for (StageLoad& load : report.load) SetSpeed(load, 1000 + static_cast<double>(i % 7));
    return report;
  }
  static void SetSpeed(StageLoad& load, double speed) { load.seconds_per_unit = 1 / speed; }

  template <typename Call>
  void Timed(Call call) {
    const Clock::duration begin = Clock::Now();
    call();
    std::vector<ClusterAction> actions = scheduler_.TakeActions();
    spent_ += Clock::Now() - begin - looking_;
    for (const ClusterAction& action : actions) Note(action);
  }
  void Note(const ClusterAction& action) {
    if (const auto* to = std::get_if<ToWorker>(&action)) {
      const size_t at = to->worker.value() - 1;
      ++workers_[at].handled;
      if (const auto* prefill = std::get_if<AssignPrefill>(&to->message)) {
        requests_[prefill->request.number].prefill = prefill->task;
        requests_[prefill->request.number].at_prefill = at;
      } else if (const auto* encode = std::get_if<AssignEncode>(&to->message)) {
        requests_[encode->request.number].encode = encode->task;
        requests_[encode->request.number].at_encode = at;
      } else if (const auto* decode = std::get_if<AssignDecode>(&to->message)) {
        requests_[decode->request.number].decode = decode->task;
        requests_[decode->request.number].at_decode = at;
      }
    } else if (const auto* to = std::get_if<ToGateway>(&action)) {
      const auto* told = std::get_if<Membership>(&to->message);
      if (told != nullptr) membership_bytes_ += 8 * static_cast<int64_t>(told->peers.size());
    }
  }
  void Say(size_t worker, const WorkerToScheduler& message) {
    Timed([&] { scheduler_.OnWorkerMessage(Incarnation(worker + 1), message, now_); });
  }
  uint64_t Begin(int items = 1) {
    const uint64_t number = ++last_request_;
    SubmitRequest submit{.request = {kGateway, number},
                         .fingerprint = "model",
                         .tenant = "tenant",
                         .prompt_tokens = 300,
                         .max_tokens = 100};
    for (int i = 0; i < items; ++i) {
      submit.items.push_back(
          {.media_bytes = 1000, .pixels = 200704, .patches = 1024, .num_tokens = 256});
    }
    Timed([&] { scheduler_.OnGatewayMessage(kGateway, submit, now_); });
    return number;
  }
  void Finish(uint64_t number) {
    const Request request = requests_.at(number);
    Say(request.at_prefill, TaskAccepted{request.prefill});
    Say(request.at_encode, TaskAccepted{request.encode});
    Say(request.at_prefill, ItemLanded{request.prefill, {0, request.encode}});
    Say(request.at_encode, TaskDelivered{request.encode});
    Say(request.at_prefill, FirstTokenSampled{request.prefill});
    const Request bound = requests_.at(number);
    if (bound.decode == TaskId()) {
      std::fprintf(stderr, "request %llu has no decode\n", static_cast<unsigned long long>(number));
      std::exit(1);
    }
    Say(bound.at_decode, TaskAccepted{bound.decode});
    Say(bound.at_decode, DecodeStarted{bound.decode});
    Say(bound.at_decode, TaskDelivered{bound.decode});
    Timed([&] { scheduler_.OnGatewayMessage(kGateway, RequestEnded{{kGateway, number}}, now_); });
    requests_.erase(number);
    begun_.erase(number);
  }
  // What time brings: not part of any request.
  void Refresh() {
    now_ += milliseconds(1);
    const auto spent = spent_;
    const size_t at = next_report_++ % workers_.size();
    Say(at, Report(at));
    spent_ = spent;
  }

  const Clock::duration looking_ = LookingAtTheClock();
  base::TimePoint now_{std::chrono::hours(1)};
  ClusterScheduler scheduler_;
  const Speeds speeds_;
  std::vector<Worker> workers_;
  std::map<uint64_t, Request> requests_;
  std::map<uint64_t, Clock::duration> begun_;
  Clock::duration spent_{}, connect_{};
  int64_t membership_bytes_ = 0;
  uint64_t last_request_ = 0;
  size_t next_report_ = 0;
};

void Measure(int workers) {
  std::printf("%d workers\n", workers);
  const int requests = workers >= 10000 ? 2000 : 10000;
  for (const Speeds speeds : {Speeds::kKnown, Speeds::kUnknown}) {
    const bool known = speeds == Speeds::kKnown;
    const int count = known ? requests : std::min(requests, 2000000 / workers + 30);
    std::printf(" split pools, speeds %s\n", known ? "known" : "unknown");
    Bench bench(workers, Layout::kSplit, speeds);
    if (known) bench.PrintConnect();
    bench.Serve(count, std::min(count / 2, workers));
  }
  std::printf(" all roles on each, speeds known\n");
  Bench(workers, Layout::kAllRoles, Speeds::kKnown)
      .Serve(requests, std::min(requests / 2, workers));
  for (const Layout layout : {Layout::kSplit, Layout::kSplitWithOneBoth}) {
    std::printf(" decode full, %s\n",
                layout == Layout::kSplit ? "split pools" : "one worker of prefill and decode");
    Bench(workers, layout, Speeds::kKnown).ReportsWhileFull(1000);
  }
}

}  // namespace
}  // namespace triptych::scheduler

int main(int argc, char** argv) {
  std::vector<int> sizes;
  for (int i = 1; i < argc; ++i) sizes.push_back(std::atoi(argv[i]));
  if (sizes.empty()) sizes = {100, 1000, 10000};
  for (int workers : sizes) triptych::scheduler::Measure(workers);
}
