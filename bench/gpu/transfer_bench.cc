// What cuda_ipc moves between two processes on one GPU: bandwidth by size and pieces under way
// beside plain device copies of the same run, the time of one piece from both ends posted to both
// completed, what packing and checking a 7B prompt's KV adds, 20 kills of the sender in the middle,
// and 1,000 pairings with flat memory.
//
// bench_transfer [FILE]   one JSON object, also written to FILE. Starts itself again as the sender.

#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/cuda.h"
#include "base/random.h"
#include "kernels/checksum.h"
#include "kernels/cuda_context.h"
#include "kernels/page_copy.h"
#include "transport/cuda_ipc/cuda_copier.h"
#include "transport/cuda_ipc/ipc_transport.h"

namespace triptych {
namespace {

using scheduler::Incarnation;
using transport::CudaCopier;
using transport::IpcTransport;

constexpr Incarnation kSender{1};
constexpr int64_t kRegion = int64_t{1} << 30;

double Now() {
  return std::chrono::duration<double>(base::RealClock().Now().time_since_epoch()).count();
}

// Different in each process and each time; nobody is kept out here.
uint64_t Unique() {
  static std::atomic<uint64_t> next{0};
  return (static_cast<uint64_t>(getpid()) << 32) + ++next;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  CHECK_TRUE(value.ok());
  return *std::move(value);
}

void MustCuda(cudaError_t error) { CHECK_TRUE(base::CudaStatus(error, "bench").ok()); }

// What the receiver asks of the sender, over a pipe.
struct Command {
  enum class Kind : int32_t { kToken, kBurst, kOneByOne, kUntilKilled } kind = Kind::kToken;
  uint64_t peer = 0, first = 0;
  int64_t count = 0, bytes = 0;
};
struct Answer {
  char token[33] = {};
  double seconds = 0;  // of all pieces
  double median = 0;   // of one
};

struct End {
  explicit End(Incarnation self)
      : staging(Must(base::DeviceMemory::Allocate(0, kRegion))),
        copier(Must(CudaCopier::Create(0))) {
    Open(self);
  }
  void Open(Incarnation self) {
    transport.reset();
    transport =
        Must(IpcTransport::Start({.self = self,
                                  .channel = absl::StrFormat("triptych-bench-%016x", Unique()),
                                  .staging = staging.ref(),
                                  .random = Unique},
                                 clock, copier.get()));
  }
  base::RealClock clock;
  base::DeviceMemory staging;
  std::unique_ptr<CudaCopier> copier;
  std::unique_ptr<IpcTransport> transport;
};

// ---- the sender ----

// Sends one piece; when it had been read.
double SendOne(End& end, Incarnation to, uint64_t sequence, const base::MemoryRef& bytes) {
  while (true) {
    double at = 0;
    std::promise<absl::Status> done;
    end.transport->Send(to, "", sequence, bytes, [&](absl::Status s) {
      at = Now();
      done.set_value(std::move(s));
    });
    if (done.get_future().get().ok()) return at;
  }
}

Answer Obey(End& end, const Command& command) {
  Answer answer;
  const Incarnation to(command.peer);
  const int64_t slots = std::max<int64_t>(1, kRegion / std::max<int64_t>(command.bytes, 1));
  const auto piece = [&](int64_t i) {
    return end.staging.ref().Sub(i % slots * command.bytes, command.bytes);
  };
  if (command.kind == Command::Kind::kToken) {
    std::strncpy(answer.token, end.transport->TokenFor(to).c_str(), sizeof(answer.token) - 1);
  } else if (command.kind == Command::Kind::kBurst) {
    std::vector<std::promise<void>> done(static_cast<size_t>(command.count));
    const double start = Now();
    for (int64_t i = 0; i < command.count; ++i) {
      end.transport->Send(to, "", command.first + static_cast<uint64_t>(i), piece(i),
                          [&p = done[static_cast<size_t>(i)]](const absl::Status& status) {
                            CHECK_TRUE(status.ok());
                            p.set_value();
                          });
    }
    for (auto& each : done) each.get_future().get();
    answer.seconds = Now() - start;
  } else if (command.kind == Command::Kind::kOneByOne) {
    std::vector<double> times;
    for (int64_t i = 0; i < command.count; ++i) {
      const double start = Now();
      times.push_back(SendOne(end, to, command.first + static_cast<uint64_t>(i), piece(i)) - start);
    }
    answer.median = Median(times);
  } else {  // the bytes of a piece are its sequence
    for (uint64_t sequence = 1;; ++sequence) {
      MustCuda(cudaMemset(piece(0).data, static_cast<int>(sequence & 255),
                          static_cast<size_t>(command.bytes)));
      MustCuda(cudaDeviceSynchronize());
      SendOne(end, to, sequence, piece(0));
    }
  }
  return answer;
}

int RunSender() {
  End end(kSender);
  const std::string name = end.transport->channel() + "\n";
  CHECK_EQ(write(1, name.data(), name.size()), static_cast<ssize_t>(name.size()));
  Command command;
  while (read(0, &command, sizeof(command)) == static_cast<ssize_t>(sizeof(command))) {
    const Answer answer = Obey(end, command);
    CHECK_EQ(write(1, &answer, sizeof(answer)), static_cast<ssize_t>(sizeof(answer)));
  }
  return 0;
}

// ---- the receiver ----

class Sender {
 public:
  Sender() {
    int to[2], from[2];
    CHECK_TRUE(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(to[0], 0);
      dup2(from[1], 1);
      execl("/proc/self/exe", "bench_transfer", "--sender", nullptr);
      _exit(1);
    }
    close(to[0]);
    close(from[1]);
    to_ = to[1];
    from_ = from[0];
    for (char c = 0; read(from_, &c, 1) == 1 && c != '\n';) channel_ += c;
  }
  ~Sender() {
    close(to_);
    close(from_);
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  void Tell(const Command& command) {
    CHECK_EQ(write(to_, &command, sizeof(command)), static_cast<ssize_t>(sizeof(command)));
  }
  Answer Hear() {
    Answer answer;
    CHECK_EQ(read(from_, &answer, sizeof(answer)), static_cast<ssize_t>(sizeof(answer)));
    return answer;
  }
  void Kill() { kill(pid_, SIGKILL); }
  // Until the sender's region is mapped at `end`, which is `self`.
  void Pair(End& end, uint64_t self) {
    Tell({.kind = Command::Kind::kToken, .peer = self});
    const Answer answer = Hear();
    auto mapped = std::make_shared<std::promise<absl::Status>>();
    auto told = std::make_shared<std::atomic<bool>>(false);
    end.transport->Connect(kSender, channel_, answer.token, [=](const absl::Status& status) {
      if (!told->exchange(true)) mapped->set_value(status);
    });
    const absl::Status status = mapped->get_future().get();
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    CHECK_TRUE(status.ok());
  }

 private:
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
  std::string channel_;
};

// Plain copies of the same sizes on one stream: bytes a second.
double PlainCopies(const base::MemoryRef& to, const base::MemoryRef& from, int64_t bytes,
                   int64_t count) {
  base::CudaStream stream = Must(base::CudaStream::Create(base::CudaPriority::kHigh));
  std::vector<double> rates;
  for (int repeat = 0; repeat < 5; ++repeat) {
    base::CudaEvent begin = Must(base::CudaEvent::Create(base::CudaTiming::kOn));
    base::CudaEvent end = Must(base::CudaEvent::Create(base::CudaTiming::kOn));
    CHECK_TRUE(begin.Record(stream.get()).ok());
    const int64_t slots = kRegion / bytes;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = i % slots * bytes;
      CHECK_TRUE(stream.Copy(to.Sub(at, bytes), from.Sub(at, bytes)).ok());
    }
    CHECK_TRUE(end.Record(stream.get()).ok());
    CHECK_TRUE(end.Synchronize().ok());
    rates.push_back(static_cast<double>(bytes * count) /
                    (1e-3 * Must(end.MillisecondsSince(begin))));
  }
  return Median(rates);
}

std::vector<std::string> Bandwidths(Sender& sender, End& end, const base::MemoryRef& landing,
                                    uint64_t* next) {
  std::vector<std::string> rows;
  const auto post = [&](int64_t bytes, int64_t count) {
    const uint64_t first = *next;
    const int64_t slots = kRegion / bytes;
    for (int64_t i = 0; i < count; ++i) {
      end.transport->Receive(kSender, (*next)++, landing.Sub(i % slots * bytes, bytes),
                             [](const absl::Status& status) { CHECK_TRUE(status.ok()); });
    }
    return first;
  };
  for (const int64_t kib : {64, 1024, 16384, 65536, 262144}) {
    const int64_t bytes = kib << 10;
    const int64_t count = std::clamp<int64_t>((int64_t{4} << 30) / bytes, 16, 512);
    std::vector<double> rates;
    for (int repeat = 0; repeat < 5; ++repeat) {
      const uint64_t first = post(bytes, count);
      sender.Tell({Command::Kind::kBurst, 2, first, count, bytes});
      rates.push_back(static_cast<double>(bytes * count) / sender.Hear().seconds);
    }
    const double plain = PlainCopies(landing, end.staging.ref(), bytes, count);
    const int64_t singles = bytes > (int64_t{64} << 20) ? 20 : 200;
    const uint64_t first = post(bytes, singles);
    sender.Tell({Command::Kind::kOneByOne, 2, first, singles, bytes});
    rows.push_back(absl::StrFormat(
        "{\"kib\": %d, \"burst_gb_s\": %.1f, \"plain_gb_s\": %.1f, \"share\": %.3f, "
        "\"one_us\": %.1f}",
        kib, Median(rates) / 1e9, plain / 1e9, Median(rates) / plain, sender.Hear().median * 1e6));
    std::fprintf(stderr, "%s\n", rows.back().c_str());
  }
  return rows;
}

// A 7B prompt of 4,096 tokens: 28 layers, 4 KV heads of 128, bfloat16, pages in random order.
std::string PackAndCheck(const base::MemoryRef& landing) {
  constexpr int kLayers = 28, kTokens = 4096, kBlocks = 4096, kPieces = 4;
  const kernels::KvLayout layout{
      .block_tokens = 16, .kv_heads = 4, .head_dim = 128, .dtype = base::DType::kBFloat16};
  const int64_t layer_bytes = layout.block_bytes() * kBlocks;
  const auto pool = Must(base::DeviceMemory::Allocate(0, layer_bytes * kLayers));
  std::vector<void*> layers;
  for (int i = 0; i < kLayers; ++i) {
    layers.push_back(static_cast<uint8_t*>(pool.ref().data) + i * layer_bytes);
  }
  std::vector<int32_t> pages(kBlocks);
  for (int i = 0; i < kBlocks; ++i) pages[static_cast<size_t>(i)] = i;
  base::SeededRandom random(1);
  for (size_t i = pages.size() - 1; i > 0; --i) std::swap(pages[i], pages[random.Below(i + 1)]);
  const auto device_pages = Must(base::DeviceMemory::Allocate(0, kBlocks * sizeof(int32_t)));
  MustCuda(cudaMemcpy(device_pages.ref().data, pages.data(), kBlocks * sizeof(int32_t),
                      cudaMemcpyHostToDevice));
  const auto sum = Must(base::DeviceMemory::Allocate(0, 8));
  base::CudaStream stream = Must(base::CudaStream::Create(base::CudaPriority::kHigh));
  kernels::CudaContext context{.stream = stream.get()};
  const kernels::Stream on{.device = kernels::Device::kCuda, .cuda = &context};
  const int64_t bytes = kernels::PageCopyBytes(layout, kLayers / kPieces, kTokens, 2);
  const auto timed = [&](const std::function<absl::Status(int)>& each) {
    std::vector<double> times;
    for (int repeat = 0; repeat < 20; ++repeat) {
      base::CudaEvent begin = Must(base::CudaEvent::Create(base::CudaTiming::kOn));
      base::CudaEvent end = Must(base::CudaEvent::Create(base::CudaTiming::kOn));
      CHECK_TRUE(begin.Record(stream.get()).ok());
      for (int i = 0; i < kPieces; ++i) CHECK_TRUE(each(i).ok());
      CHECK_TRUE(end.Record(stream.get()).ok());
      CHECK_TRUE(end.Synchronize().ok());
      times.push_back(Must(end.MillisecondsSince(begin)));
    }
    return Median(times);
  };
  const auto args = [&](int piece) {
    const size_t count = kLayers / kPieces, first = static_cast<size_t>(piece) * count;
    return kernels::PageCopyArgs{.layer_pages = absl::MakeConstSpan(layers).subspan(first, count),
                                 .num_blocks = kBlocks,
                                 .block_ids = static_cast<const int32_t*>(device_pages.ref().data),
                                 .token_begin = 0,
                                 .tokens = kTokens,
                                 .layout = layout,
                                 .halves = 2,
                                 .buffer = landing.Sub(piece * bytes, bytes).data};
  };
  const double gather = timed([&](int i) { return kernels::GatherPages(args(i), on); });
  const double scatter = timed([&](int i) { return kernels::ScatterPages(args(i), on); });
  const double checksum = timed([&](int i) {
    return kernels::Checksum({.data = landing.Sub(i * bytes, bytes).data,
                              .bytes = bytes,
                              .checksum = static_cast<uint64_t*>(sum.ref().data)},
                             on);
  });
  return absl::StrFormat(
      "{\"mib\": %d, \"pieces\": %d, \"gather_ms\": %.3f, \"checksum_ms\": %.3f, "
      "\"scatter_ms\": %.3f, \"beyond_copy_ms\": %.3f}",
      bytes * kPieces >> 20, kPieces, gather, checksum, scatter, gather + 2 * checksum + scatter);
}

// Kills the sender while pieces pass; how long until the receiver is told, at most.
std::string Kills(End& end, const base::MemoryRef& landing) {
  constexpr int64_t kBytes = int64_t{16} << 20;
  double longest = 0;
  int64_t pieces = 0, wrong = 0;
  std::vector<uint8_t> seen(kBytes);
  for (uint64_t round = 0; round < 20; ++round) {
    const uint64_t self = 100 + round;
    end.Open(Incarnation(self));
    Sender sender;
    sender.Pair(end, self);
    sender.Tell({Command::Kind::kUntilKilled, self, 0, 0, kBytes});
    double killed = 0;
    for (uint64_t sequence = 1;; ++sequence) {
      std::promise<absl::Status> done;
      end.transport->Receive(kSender, sequence, landing.Sub(0, kBytes),
                             [&](absl::Status status) { done.set_value(std::move(status)); });
      if (sequence == 3 + round) {
        killed = Now();
        sender.Kill();
      }
      if (!done.get_future().get().ok()) break;
      ++pieces;
      MustCuda(cudaMemcpy(seen.data(), landing.data, kBytes, cudaMemcpyDeviceToHost));
      const auto value = static_cast<uint8_t>(sequence & 255);
      wrong += std::count(seen.begin(), seen.end(), value) != kBytes;
    }
    longest = std::max(longest, Now() - killed);
  }
  return absl::StrFormat(
      "{\"rounds\": 20, \"pieces\": %d, \"wrong\": %d, \"noticed_within_ms\": %.1f}", pieces, wrong,
      longest * 1e3);
}

std::string Pairings(End& end, const base::MemoryRef& landing) {
  Sender sender;
  const auto free_memory = [] { return Must(base::DescribeCudaDevice(0)).free_bytes; };
  int64_t before = 0;
  const double start = Now();
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t self = 1000 + i;
    end.Open(Incarnation(self));
    sender.Pair(end, self);
    std::promise<void> first, second;
    end.transport->Receive(kSender, 1, landing.Sub(0, 1 << 20),
                           [&](const absl::Status&) { first.set_value(); });
    end.transport->Receive(kSender, 2, landing.Sub(1 << 20, 1 << 20),
                           [&](const absl::Status&) { second.set_value(); });
    end.transport->Abort(kSender);
    first.get_future().get();
    second.get_future().get();
    if (i == 20) before = free_memory();
  }
  const double seconds = Now() - start;
  return absl::StrFormat("{\"rounds\": 1000, \"seconds\": %.2f, \"memory_grew_bytes\": %d}",
                         seconds, before - free_memory());
}

int RunReceiver(const char* file) {
  std::string out;
  {
    auto sender = std::make_unique<Sender>();  // before this process has threads
    End end(Incarnation(2));
    const auto landing = Must(base::DeviceMemory::Allocate(0, kRegion));
    MustCuda(cudaMemset(landing.ref().data, 1, kRegion));
    MustCuda(cudaMemset(end.staging.ref().data, 2, kRegion));
    sender->Pair(end, 2);
    uint64_t next = 1;
    const auto rows = Bandwidths(*sender, end, landing.ref(), &next);
    sender.reset();
    const std::string packed = PackAndCheck(landing.ref());
    std::fprintf(stderr, "pack %s\n", packed.c_str());
    const std::string kills = Kills(end, landing.ref());
    std::fprintf(stderr, "kills %s\n", kills.c_str());
    const std::string pairings = Pairings(end, landing.ref());
    std::fprintf(stderr, "pairings %s\n", pairings.c_str());
    out = absl::StrCat("{\"sizes\": [", absl::StrJoin(rows, ", "), "], \"pack\": ", packed,
                       ", \"kills\": ", kills, ", \"pairings\": ", pairings, "}\n");
  }
  std::printf("%s", out.c_str());
  if (file != nullptr) std::ofstream(file) << out;
  return 0;
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--sender") == 0) return triptych::RunSender();
  return triptych::RunReceiver(argc > 1 ? argv[1] : nullptr);
}
