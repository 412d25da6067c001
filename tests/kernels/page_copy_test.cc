// Defends gather and scatter, bit for bit, against a token-by-token copy on both devices: ranges
// that start and end inside a block, shuffled blocks, rows that are and are not whole 16-byte
// vectors; and that nothing outside the range is written.

#include "kernels/page_copy.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <numeric>

#include "tests/kernels/device_buffer.h"
#include "tests/support/skip.h"

namespace triptych::kernels {
namespace {

struct Case {
  int layers;
  int kv_heads;
  int head_dim;
  int64_t token_begin;
  int64_t tokens;
  int block_tokens = 16;
};

using Bytes = std::vector<uint16_t>;  // bf16 elements, any bits

Bytes RandomBytes(std::mt19937* generator, int64_t count) {
  Bytes bytes(count);
  for (uint16_t& value : bytes) value = static_cast<uint16_t>((*generator)());
  return bytes;
}

// Pools, a page table and a buffer full of random bits; the naive copy works on the host's images.
struct Scene {
  explicit Scene(const Case& given) : c(given), generator(17) {
    layout = {.block_tokens = c.block_tokens,
              .kv_heads = c.kv_heads,
              .head_dim = c.head_dim,
              .dtype = DType::kBFloat16};
    const int64_t used = (c.token_begin + c.tokens + c.block_tokens - 1) / c.block_tokens;
    num_blocks = used + 5;
    block_ids.resize(num_blocks);
    std::iota(block_ids.begin(), block_ids.end(), 0);
    std::shuffle(block_ids.begin(), block_ids.end(), generator);
    block_ids.resize(used);
    for (int l = 0; l < c.layers; ++l) {
      pools.push_back(RandomBytes(&generator, num_blocks * layout.block_elements()));
    }
    buffer = RandomBytes(&generator, PageCopyBytes(layout, c.layers, c.tokens) / 2);
  }

  // Calls visit(element of the pool, element of the buffer) for the whole range.
  template <typename Visit>
  void ForEach(Visit visit) {
    int64_t at = 0;
    for (int l = 0; l < c.layers; ++l) {
      for (int half = 0; half < 2; ++half) {
        for (int64_t t = c.token_begin; t < c.token_begin + c.tokens; ++t) {
          const int64_t offset = layout.KeyOffset(block_ids[t / c.block_tokens],
                                                  static_cast<int>(t % c.block_tokens)) +
                                 half * layout.half_block_elements();
          for (int64_t i = 0; i < layout.token_elements(); ++i) {
            visit(pools[l][offset + i], buffer[at++]);
          }
        }
      }
    }
  }

  Case c;
  std::mt19937 generator;
  KvLayout layout;
  int64_t num_blocks = 0;
  std::vector<int32_t> block_ids;
  std::vector<Bytes> pools;
  Bytes buffer;
};

enum class Verb { kGather, kScatter };

// Runs one op on the device's copy of the scene, the naive one on the scene, and compares it all.
void CheckVerb(Device device, Verb verb, const Case& c) {
  INFO("layers " << c.layers << " heads " << c.kv_heads << " dim " << c.head_dim << " first "
                 << c.token_begin << " tokens " << c.tokens << " verb " << static_cast<int>(verb));
  Scene scene(c);
  std::vector<std::unique_ptr<DeviceBuffer>> pools;
  std::vector<void*> bases;
  for (const Bytes& pool : scene.pools) {
    pools.push_back(std::make_unique<DeviceBuffer>(device, pool));
    bases.push_back(pools.back()->get());
  }
  const DeviceBuffer buffer(device, scene.buffer), ids(device, scene.block_ids);
  const PageCopyArgs args = {.layer_pages = bases,
                             .num_blocks = scene.num_blocks,
                             .block_ids = ids.as<int32_t>(),
                             .token_begin = c.token_begin,
                             .tokens = c.tokens,
                             .layout = scene.layout,
                             .buffer = buffer.get()};
  const Stream stream = {.device = device};
  REQUIRE((verb == Verb::kGather ? GatherPages(args, stream) : ScatterPages(args, stream)).ok());
  Synchronize(device);
  scene.ForEach([&](uint16_t& in_pool, uint16_t& in_buffer) {
    if (verb == Verb::kGather) {
      in_buffer = in_pool;
    } else {
      in_pool = in_buffer;
    }
  });
  CHECK(buffer.Read<uint16_t>() == scene.buffer);
  for (int l = 0; l < c.layers; ++l) {
    CHECK(pools[l]->Read<uint16_t>() == scene.pools[l]);
  }
}

void CheckCases(Device device) {
  for (Verb verb : {Verb::kGather, Verb::kScatter}) {
    CheckVerb(device, verb, {3, 4, 128, 0, 160});
    CheckVerb(device, verb, {2, 4, 128, 37, 301});
    CheckVerb(device, verb, {1, 2, 64, 5, 1});
    CheckVerb(device, verb, {2, 1, 20, 3, 45});
    CheckVerb(device, verb, {2, 3, 7, 13, 50, 5});
    CheckVerb(device, verb, {130, 1, 8, 2, 20});
    CheckVerb(device, verb, {1, 1, 128, 0, 16});
  }
}

TEST_CASE("PageCopy: gather and scatter equal the naive copy on the CPU", "[kernels]") {
  CheckCases(Device::kCpu);
}

TEST_CASE("PageCopy: gather and scatter equal the naive copy on CUDA", "[kernels][gpu]") {
  if (!IsAtHand(Device::kCuda)) return testing::SkipTest("no GPU");
  CheckCases(Device::kCuda);
}

TEST_CASE("PageCopy: a block outside the pool is refused and nothing is written", "[kernels]") {
  Scene scene({1, 1, 8, 0, 32});
  const Bytes before = scene.buffer;
  void* base = scene.pools[0].data();
  PageCopyArgs args = {.layer_pages = {&base, 1},
                       .num_blocks = scene.num_blocks,
                       .block_ids = scene.block_ids.data(),
                       .tokens = 32,
                       .layout = scene.layout,
                       .buffer = scene.buffer.data()};
  for (int32_t bad : {-1, static_cast<int32_t>(scene.num_blocks)}) {
    scene.block_ids[1] = bad;
    CHECK(GatherPages(args, {}).code() == absl::StatusCode::kInvalidArgument);
    CHECK(ScatterPages(args, {}).code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK(scene.buffer == before);
  args.tokens = 16;
  CHECK(GatherPages(args, {}).ok());
#ifndef TRIPTYCH_HAS_CUDA
  CHECK(GatherPages(args, {.device = Device::kCuda}).code() == absl::StatusCode::kUnimplemented);
#endif
  args.buffer = nullptr;
  CHECK(GatherPages(args, {}).code() == absl::StatusCode::kInvalidArgument);
  args.tokens = 0;
  CHECK(GatherPages(args, {}).ok());
  args.token_begin = -1;
  CHECK(GatherPages(args, {}).code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace triptych::kernels
