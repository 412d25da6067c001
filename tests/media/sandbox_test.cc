// What is defended: the sandbox gives the pixels of the decoder, survives the death of any child,
// and stays within its time. Children are really killed.

#include "media/sandbox.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <thread>

#include "media/confinement.h"
#include "media/decode.h"
#include "media/syscall_filter.h"
#include "tests/media/picture_writer.h"

namespace triptych::media {
namespace {

using testing::Gradient;
using testing::PngKind;
using testing::WritePng;

std::unique_ptr<DecodePool> StartPool(SandboxOptions options = {}) {
  if (options.decoder_path.empty()) options.decoder_path = TRIPTYCH_MEDIA_DECODER;
  auto pool = DecodePool::Start(options);
  REQUIRE(pool.ok());
  return *std::move(pool);
}

// Processes whose parent is this one.
std::vector<pid_t> Children() {
  std::vector<pid_t> children;
  const auto self = std::to_string(getpid());
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "children");
    pid_t pid = 0;
    while (file >> pid) children.push_back(pid);
  }
  return children;
}

std::string Read(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

int OpenDescriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("DecodePool: gives what the decoder gives, from several threads", "[media][sandbox]") {
  const auto pool = StartPool();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 10; ++round) {
        const base::Image image = Gradient(20 + t, 30 + round);
        const auto decoded = pool->Decode(WritePng(image, PngKind()), Limits());
        if (!decoded.ok() || decoded->pixels != image.pixels) std::abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(Children().size() <= 2);
  CHECK(pool->num_deaths() == 0);
}

TEST_CASE("DecodePool: a large picture fits in the children's memory", "[media][sandbox]") {
  const auto pool = StartPool();
  const base::Image image = Gradient(4000, 3000);
  const auto decoded =
      pool->Decode(testing::WriteJpeg(image, testing::JpegKind::kProgressive), Limits());
  REQUIRE(decoded.ok());
  CHECK(decoded->width == 4000);
}

TEST_CASE("DecodePool: a refused picture costs no child", "[media][sandbox][hostile]") {
  const auto pool = StartPool();
  std::string broken = WritePng(Gradient(20, 20), PngKind());
  broken[broken.size() - 30] ^= 1;
  CHECK(pool->Decode(broken, Limits()).status() == ImageMalformed());
  CHECK(pool->Decode("<svg/>", Limits()).status() == UnsupportedImageFormat());
  CHECK(pool->Decode(WritePng(Gradient(20, 20), PngKind()), Limits()).ok());
  CHECK(pool->num_deaths() == 0);
}

TEST_CASE("DecodePool: a killed child is replaced and nobody notices", "[media][sandbox]") {
  const auto pool = StartPool({.num_children = 1});
  const std::string picture = WritePng(Gradient(50, 50), PngKind());
  const auto session = pool->Open();
  REQUIRE(session->Decode(picture, Limits()).ok());
  for (int round = 0; round < 5; ++round) {
    const std::vector<pid_t> children = Children();
    REQUIRE(children.size() == 1);
    kill(children[0], SIGKILL);
    REQUIRE(session->Decode(picture, Limits()).ok());
  }
  CHECK(pool->num_deaths() == 5);
  CHECK(pool->num_violations() == 0);
}

TEST_CASE("DecodePool: no child sees a second item", "[media][sandbox][security]") {
  const auto pool = StartPool({.num_children = 1});
  const std::string picture = WritePng(Gradient(50, 50), PngKind());
  std::vector<pid_t> seen;
  for (int item = 0; item < 3; ++item) {
    const auto session = pool->Open();
    for (int frame = 0; frame < 2; ++frame) {
      REQUIRE(session->Decode(picture, Limits()).ok());
      const std::vector<pid_t> children = Children();
      REQUIRE(children.size() == 1);
      CHECK(std::count(seen.begin(), seen.end(), children[0]) == frame);
      if (frame == 0) seen.push_back(children[0]);
    }
  }
  CHECK(Children().empty());
  CHECK(pool->num_deaths() == 0);
}

TEST_CASE("DecodePool: a child that was started early serves one item, as any other",
          "[media][sandbox][security]") {
  const auto pool = StartPool({.num_children = 2});
  const std::string picture = WritePng(Gradient(50, 50), PngKind());
  pool->StartSpares();
  pool->StartSpares();  // nothing is missing
  CHECK(Children().size() == 2);
  for (int left = 1; left >= 0; --left) {
    const auto session = pool->Open();
    REQUIRE(session->Decode(picture, Limits()).ok());
    CHECK(Children().size() == static_cast<size_t>(left) + 1);
  }
  CHECK(Children().empty());
  // One that has died meanwhile is nobody's fault.
  pool->StartSpares();
  for (const pid_t child : Children()) {
    REQUIRE(kill(child, SIGKILL) == 0);
    siginfo_t info = {};
    REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
  }
  CHECK(pool->Decode(picture, Limits()).ok());
  CHECK(pool->num_deaths() == 0);
}

TEST_CASE("DecodePool: a child that stands still once is not the picture's fault",
          "[media][sandbox][hostile]") {
  const auto pool = StartPool({.num_children = 1, .stall = std::chrono::seconds(2)});
  const std::string picture = WritePng(Gradient(50, 50), PngKind());
  const auto session = pool->Open();
  REQUIRE(session->Decode(picture, Limits()).ok());
  kill(Children().at(0), SIGSTOP);
  const base::RealClock clock;
  const base::TimePoint start = clock.Now();
  CHECK(session->Decode(picture, Limits()).ok());
  CHECK(clock.Now() - start < std::chrono::seconds(20));
  CHECK(pool->num_deaths() == 1);
}

TEST_CASE("DecodePool: where every child stands still it is the machine's fault",
          "[media][sandbox][hostile]") {
  // It reads what it is sent and answers nothing.
  const auto pool =
      StartPool({.decoder_path = "/bin/cat", .stall = std::chrono::milliseconds(100)});
  const std::string picture = WritePng(Gradient(5, 5), PngKind());
  CHECK(absl::IsUnavailable(pool->Decode(picture, Limits()).status()));
  CHECK(pool->num_deaths() == 2);
}

TEST_CASE("DecodePool: a picture that takes too much of the processor is malformed at once",
          "[media][sandbox][hostile]") {
  const auto pool = StartPool({.decoder_path = TRIPTYCH_BUSY_DECODER,
                               .cpu_time = std::chrono::seconds(1),
                               .stall = std::chrono::minutes(5)});
  const std::string picture = WritePng(Gradient(5, 5), PngKind());
  CHECK(pool->Decode(picture, Limits()).status() == ImageMalformed());
  CHECK(pool->num_deaths() == 1);
}

TEST_CASE("DecodeSession: what is cancelled ends at once, its child is gone",
          "[media][sandbox][hostile]") {
  const auto pool =
      StartPool({.decoder_path = "/bin/cat", .num_children = 1, .stall = std::chrono::hours(1)});
  const auto session = pool->Open();
  std::thread canceller([&] {
    while (Children().empty()) std::this_thread::yield();
    session->Cancel();
  });
  const std::string picture = WritePng(Gradient(5, 5), PngKind());
  CHECK(absl::IsCancelled(session->Decode(picture, Limits()).status()));
  canceller.join();
  CHECK(Children().empty());
  CHECK(absl::IsCancelled(session->Decode(picture, Limits()).status()));
  CHECK(pool->num_deaths() == 0);
}

// In a process of its own, since none comes back from it.
int HowEnds(void (*attack)()) {
  const pid_t child = fork();
  if (child == 0) {
    if (!Confine(int64_t{1} << 30) || !FilterSystemCalls()) _exit(1);
    attack();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

TEST_CASE("Sandbox: memory is never made executable, and other calls end the process",
          "[media][sandbox][security]") {
#if !defined(__SANITIZE_ADDRESS__)
  CHECK(HowEnds([] { free(malloc(10 << 20)); }) == 0);
  CHECK(HowEnds([] {
          mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
               0);
        }) == SIGSYS);
  CHECK(HowEnds([] {
          void* page =
              mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          mprotect(page, 4096, PROT_READ | PROT_EXEC);
        }) == SIGSYS);
  CHECK(HowEnds([] { close(open("/etc/passwd", 0)); }) == SIGSYS);
  CHECK(HowEnds([] { fork(); }) == SIGSYS);
  CHECK(HowEnds([] {
          const rlimit more{RLIM_INFINITY, RLIM_INFINITY};
          setrlimit(RLIMIT_CPU, &more);
        }) == SIGSYS);
#endif
}

TEST_CASE("DecodePool: a program that dies at once makes the picture malformed",
          "[media][sandbox]") {
  const auto pool = StartPool({.decoder_path = "/bin/true"});
  const std::string picture = WritePng(Gradient(5, 5), PngKind());
  CHECK(pool->Decode(picture, Limits()).status() == ImageMalformed());
  CHECK(pool->num_deaths() == 2);
}

TEST_CASE("DecodePool: children and descriptors are gone with the pool", "[media][sandbox]") {
  const int before = OpenDescriptors();
  {
    const auto pool = StartPool();
    const auto session = pool->Open();
    REQUIRE(session->Decode(WritePng(Gradient(5, 5), PngKind()), Limits()).ok());
    CHECK(Children().size() == 1);
  }
  CHECK(Children().empty());
  CHECK(OpenDescriptors() == before);
}

TEST_CASE("DecodePool: a child is confined", "[media][sandbox][hostile]") {
  const auto pool = StartPool();
  const auto session = pool->Open();
  REQUIRE(session->Decode(WritePng(Gradient(5, 5), PngKind()), Limits()).ok());
  const std::string process = "/proc/" + std::to_string(Children().at(0));
  const std::string status = Read(process + "/status"), limits = Read(process + "/limits");
  CHECK(status.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(status.find("Seccomp:\t2") != std::string::npos);
  CHECK(limits.find("Max open files            3  ") != std::string::npos);
  CHECK(limits.find("Max core file size        0  ") != std::string::npos);
  CHECK(limits.find("Max cpu time              unlimited") == std::string::npos);
  int descriptors = 0;
  for (const auto& entry : std::filesystem::directory_iterator(process + "/fd")) {
    descriptors += std::stoi(entry.path().filename().string()) <= 2 ? 1 : 100;
  }
  CHECK(descriptors == 3);
}

TEST_CASE("DecodePool: a missing decoder or a bad option is refused at the start",
          "[media][sandbox]") {
  CHECK(absl::IsNotFound(DecodePool::Start({.decoder_path = "/nonexistent"}).status()));
  CHECK(absl::IsInvalidArgument(DecodePool::Start({.num_children = 0}).status()));
}

}  // namespace triptych::media
