// What is defended: the sandbox gives the pixels of the decoder, survives the death of any child,
// and stays within its time. Children are really killed.

#include "media/sandbox.h"

#include <signal.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <thread>

#include "media/decode.h"
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
  REQUIRE(pool->Decode(picture, Limits()).ok());
  for (int round = 0; round < 5; ++round) {
    const std::vector<pid_t> children = Children();
    REQUIRE(children.size() == 1);
    kill(children[0], SIGKILL);
    REQUIRE(pool->Decode(picture, Limits()).ok());
  }
  CHECK(pool->num_deaths() == 5);
}

TEST_CASE("DecodePool: a child that answers nothing is killed in time",
          "[media][sandbox][hostile]") {
  const auto pool = StartPool({.num_children = 1, .timeout = std::chrono::seconds(2)});
  const std::string picture = WritePng(Gradient(50, 50), PngKind());
  REQUIRE(pool->Decode(picture, Limits()).ok());
  kill(Children().at(0), SIGSTOP);
  const base::RealClock clock;
  const base::TimePoint start = clock.Now();
  CHECK(pool->Decode(picture, Limits()).status() == ImageMalformed());
  CHECK(clock.Now() - start < std::chrono::seconds(20));
  CHECK(pool->num_deaths() == 1);
  CHECK(pool->Decode(picture, Limits()).ok());
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
    REQUIRE(pool->Decode(WritePng(Gradient(5, 5), PngKind()), Limits()).ok());
    CHECK(Children().size() == 1);
  }
  CHECK(Children().empty());
  CHECK(OpenDescriptors() == before);
}

TEST_CASE("DecodePool: a child is confined", "[media][sandbox][hostile]") {
  const auto pool = StartPool();
  REQUIRE(pool->Decode(WritePng(Gradient(5, 5), PngKind()), Limits()).ok());
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
