// Defended: without a pool of decoders (modelled devices) only headers are looked at, broken ones
// are refused as the request's fault, and what is queued at the end is dropped, not worked off.

#include "services/worker/media_preparer.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <future>
#include <memory>
#include <thread>

#include "tests/media/picture_writer.h"

namespace triptych::services {
namespace {

constexpr scheduler::Grid kGrid{1, 4, 6};  // of 84 x 56 pixels

models::ModelConfig Config() {
  models::ModelConfig config;
  config.preprocessor.min_pixels = 56 * 56;
  config.preprocessor.max_pixels = 28 * 28 * 1280;
  return config;
}

std::string Picture() {
  return triptych::testing::WritePng(triptych::testing::Gradient(84, 56), {});
}

class Preparer {
 public:
  explicit Preparer(media::Limits limits = media::Limits())
      : preparer_(processor_, nullptr, {.limits = limits}, clock_) {}

  absl::StatusOr<engine::EncodeInput> Prepare(std::vector<std::string> pictures) {
    auto answer = std::make_shared<std::promise<absl::StatusOr<engine::EncodeInput>>>();
    auto future = answer->get_future();
    const bool queued =
        preparer_.Prepare({scheduler::ItemKind::kImage, std::move(pictures), kGrid},
                          [answer](absl::StatusOr<engine::EncodeInput> input, base::Duration) {
                            answer->set_value(std::move(input));
                          });
    REQUIRE(queued);
    return future.get();
  }

 private:
  base::RealClock clock_;
  models::ImageProcessor processor_{Config()};
  MediaPreparer preparer_;
};

TEST_CASE("MediaPreparer: without a pool the grid is the gateway's and no pixel is decoded",
          "[services][worker]") {
  Preparer preparer;
  const auto input = preparer.Prepare({Picture()});
  REQUIRE(input.ok());
  CHECK(input->grid == kGrid);
  CHECK(input->pixels.empty());
}

TEST_CASE("MediaPreparer: what is no picture is INVALID_ARGUMENT", "[services][worker]") {
  Preparer preparer;
  CHECK(preparer.Prepare({}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(preparer.Prepare({"<svg/>"}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(preparer.Prepare({Picture(), ""}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(preparer.Prepare({Picture().substr(0, 12)}).status().code() ==
        absl::StatusCode::kInvalidArgument);
  CHECK(preparer.Prepare({Picture()}).ok());
}

TEST_CASE("MediaPreparer: what is queued when it ends is dropped", "[services][worker]") {
  base::RealClock clock;
  const models::ImageProcessor processor{Config()};
  std::promise<void> begun, let_go;
  std::atomic<int> done{0};
  std::thread opener;
  {
    MediaPreparer preparer(processor, nullptr, {}, clock);
    preparer.Prepare({scheduler::ItemKind::kImage, {Picture()}, kGrid}, [&](auto, auto) {
      begun.set_value();
      let_go.get_future().wait();
      ++done;
    });
    begun.get_future().wait();
    for (int i = 0; i < 100; ++i) {
      preparer.Prepare({scheduler::ItemKind::kImage, {Picture()}, kGrid},
                       [&](auto, auto) { ++done; });
    }
    // The first lets go once the destructor has closed the queue: then nothing is taken in. Asked
    // each millisecond, so that it is not the queue's bound that refuses.
    opener = std::thread([&] {
      std::promise<void> never;
      const std::future<void> future = never.get_future();
      while (preparer.Prepare({scheduler::ItemKind::kImage, {""}, kGrid}, [](auto, auto) {})) {
        future.wait_for(std::chrono::milliseconds(1));
      }
      let_go.set_value();
    });
  }
  opener.join();
  CHECK(done == 1);
}

}  // namespace
}  // namespace triptych::services
