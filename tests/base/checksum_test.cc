// What is defended: the checksum is the same by any split into whole blocks, differs for any change
// of a bit, of the order or of the length, and keeps its definition (both ends of a transfer must
// agree, whatever they run on).

#include "base/checksum.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <set>
#include <vector>

#include "base/random.h"

namespace triptych::base {
namespace {

std::vector<uint8_t> RandomBytes(size_t size, uint64_t seed) {
  SeededRandom random(seed);
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Next());
  return bytes;
}

uint64_t Sum(const std::vector<uint8_t>& bytes) { return Checksum64(bytes.data(), bytes.size()); }

// The definition, written a second time without vectors.
uint64_t Defined(std::vector<uint8_t> bytes) {
  const size_t size = bytes.size();
  bytes.resize((size + kChecksumBlock - 1) / kChecksumBlock * kChecksumBlock);
  uint64_t sum = 0;
  for (size_t block = 0; block * kChecksumBlock < bytes.size(); ++block) {
    uint64_t lanes[8] = {};
    for (uint64_t stripe = 0; stripe < kChecksumBlock / 64; ++stripe) {
      for (int i = 0; i < 8; ++i) {
        uint64_t word = 0, neighbour = 0;
        const uint8_t* at = bytes.data() + block * kChecksumBlock + stripe * 64;
        for (int b = 0; b < 8; ++b) word |= uint64_t{at[8 * i + b]} << (8 * b);
        for (int b = 0; b < 8; ++b) neighbour |= uint64_t{at[8 * (i ^ 1) + b]} << (8 * b);
        const uint64_t key = MixBits(0x9e3779b185ebca87ULL * static_cast<uint64_t>(i + 1)) +
                             stripe * 0xc2b2ae3d27d4eb4fULL;
        const uint64_t x = word ^ key;
        lanes[i] += neighbour + (x & 0xffffffff) * (x >> 32);
      }
    }
    uint64_t hash = 0;
    for (uint64_t i = 0; i < 8; ++i) hash += MixBits(lanes[i] ^ (0x9e3779b185ebca87ULL * (i + 1)));
    sum += MixBits(hash + 0x165667b19e3779f9ULL * (block + 1));
  }
  return MixBits(sum ^ MixBits(size + 0x165667b19e3779f9ULL));
}

TEST_CASE("Checksum64: it is what its definition says", "[base]") {
  for (size_t size : {0, 1, 63, 64, 4095, 4096, 4097, 50000}) {
    const std::vector<uint8_t> bytes = RandomBytes(size, size);
    CHECK(Sum(bytes) == Defined(bytes));
  }
}

TEST_CASE("Checksum64: any split into whole blocks gives the same sum", "[base]") {
  const uint64_t seed = 20261201;
  INFO("seed " << seed);
  SeededRandom random(seed);
  for (int round = 0; round < 50; ++round) {
    const std::vector<uint8_t> bytes = RandomBytes(random.Below(200000), random.Next());
    const uint64_t blocks = (bytes.size() + kChecksumBlock - 1) / kChecksumBlock;
    std::vector<uint64_t> cuts = {0, blocks};
    for (int i = 0; i < 5; ++i) cuts.push_back(random.Below(blocks + 1));
    std::sort(cuts.begin(), cuts.end());
    uint64_t sum = 0;
    for (size_t i = cuts.size() - 1; i > 0; --i) {  // Order does not matter either.
      const size_t begin = std::min<size_t>(cuts[i - 1] * kChecksumBlock, bytes.size());
      const size_t end = std::min<size_t>(cuts[i] * kChecksumBlock, bytes.size());
      sum += ChecksumBlocks(bytes.data() + begin, end - begin, cuts[i - 1]);
    }
    CHECK(FinishChecksum(sum, bytes.size()) == Sum(bytes));
  }
}

TEST_CASE("Checksum64: a flipped bit, swapped words, stripes or blocks, and a length show",
          "[base]") {
  const std::vector<uint8_t> bytes = RandomBytes(3 * kChecksumBlock, 5);
  std::set<uint64_t> sums = {Sum(bytes)};
  size_t variants = 1;
  for (size_t bit = 0; bit < bytes.size() * 8; bit += 101, ++variants) {
    std::vector<uint8_t> changed = bytes;
    changed[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    sums.insert(Sum(changed));
  }
  for (size_t unit : {size_t{8}, size_t{64}, kChecksumBlock}) {
    std::vector<uint8_t> changed = bytes;
    std::swap_ranges(changed.begin(), changed.begin() + unit, changed.begin() + unit);
    sums.insert(Sum(changed));
    ++variants;
  }
  std::vector<uint8_t> zeros = bytes;
  for (int i = 0; i < 3; ++i, ++variants) {
    zeros.push_back(0);
    sums.insert(Sum(zeros));
  }
  CHECK(sums.size() == variants);
  CHECK(Checksum64(nullptr, 0) == Checksum64(bytes.data(), 0));
  CHECK(Checksum64(bytes.data(), 100, 1) != Checksum64(bytes.data(), 100, 2));
}

}  // namespace
}  // namespace triptych::base
