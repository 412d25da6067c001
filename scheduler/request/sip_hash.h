#pragma once

// SipHash-2-4 (Aumasson and Bernstein, 2012) over a stream of 64-bit words. Keyed, so that a client
// who chooses the words but not the key cannot aim at a collision.

#include <bit>
#include <cstdint>

namespace triptych::scheduler {

// One thread; copy it to fork a hash that goes on from the same prefix.
class SipHash {
 public:
  SipHash(uint64_t key0, uint64_t key1)
      : v0_(key0 ^ 0x736f6d6570736575ULL),
        v1_(key1 ^ 0x646f72616e646f6dULL),
        v2_(key0 ^ 0x6c7967656e657261ULL),
        v3_(key1 ^ 0x7465646279746573ULL) {}

  void Add(uint64_t word) {
    ++count_;
    Absorb(word);
  }

  // The hash of the words so far; more may follow. The same as the paper's for a message of 8 bytes
  // a word, little-endian.
  uint64_t Digest() const {
    SipHash last = *this;
    last.Absorb((count_ * 8) << 56);
    last.v2_ ^= 0xff;
    for (int i = 0; i < 4; ++i) last.Round();
    return last.v0_ ^ last.v1_ ^ last.v2_ ^ last.v3_;
  }

 private:
  void Absorb(uint64_t word) {
    v3_ ^= word;
    Round();
    Round();
    v0_ ^= word;
  }

  void Round() {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v2_ = std::rotl(v2_, 32);
  }

  uint64_t v0_, v1_, v2_, v3_;
  uint64_t count_ = 0;
};

}  // namespace triptych::scheduler
