#pragma once

// The contract of transport.h as a suite that every back end runs. A back end provides a factory of
// connected pairs; its test calls CheckTransportContract.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport/transport.h"

namespace triptych::testing {

// Two workers, joined. Destroyed in any state; all callbacks have come by then.
class TransportPair {
 public:
  virtual ~TransportPair() = default;
  virtual transport::Transport& a() = 0;
  virtual transport::Transport& b() = 0;
  virtual scheduler::Incarnation a_id() const = 0;
  virtual scheduler::Incarnation b_id() const = 0;
  // Where a reaches b.
  virtual std::string b_address() const = 0;
  // b's process dies: nothing of it answers any more. Its own callbacks come first.
  virtual void KillB() = 0;
  // Lets work go on until `done` or until there is nothing left to do (or, with threads, a time
  // that is long for a piece); says whether it became true.
  virtual bool RunUntil(const std::function<bool()>& done) = 0;
  // Lets what can happen without another call happen.
  virtual void RunAWhile() = 0;

  // Memory that a may send from and that b may land in, for as long as the pair lives.
  virtual base::MemoryRef NewStaging(size_t bytes) { return NewHostMemory(bytes); }
  virtual base::MemoryRef NewLanding(size_t bytes) { return NewHostMemory(bytes); }
  virtual void Write(const base::MemoryRef& memory, const std::vector<uint8_t>& bytes);
  virtual std::vector<uint8_t> Read(const base::MemoryRef& memory);

 private:
  base::MemoryRef NewHostMemory(size_t bytes) {
    std::vector<uint8_t>& memory = memory_.emplace_back(bytes);
    return base::HostRef(absl::MakeSpan(memory));
  }
  std::deque<std::vector<uint8_t>> memory_;
};

using TransportPairFactory = std::function<std::unique_ptr<TransportPair>()>;

enum class Reaches { kHostMemory, kDeviceMemory };
// To be called inside a TEST_CASE: one section a clause.
void CheckTransportContract(const TransportPairFactory& make,
                            Reaches reaches = Reaches::kHostMemory);

}  // namespace triptych::testing
