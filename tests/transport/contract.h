#pragma once

// The contract of transport.h as a suite that every back end runs. A back end provides a factory of
// connected pairs; its test calls CheckTransportContract.

#include <functional>
#include <memory>
#include <string>

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
};

using TransportPairFactory = std::function<std::unique_ptr<TransportPair>()>;

// To be called inside a TEST_CASE: one section a clause.
void CheckTransportContract(const TransportPairFactory& make);

}  // namespace triptych::testing
