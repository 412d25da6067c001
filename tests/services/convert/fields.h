#pragma once

// Every field of every plan message, once: enough to fill a message with random values and to
// compare two. A field that is added to a message and not here does not compile.

#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <variant>
#include <vector>

#include "base/random.h"
#include "scheduler/plan/gateway_messages.h"
#include "scheduler/plan/limits.h"
#include "scheduler/plan/transfer_messages.h"
#include "scheduler/plan/worker_messages.h"

#define TRIPTYCH_FIELDS(Type, ...)    \
  inline auto Fields(Type& message) { \
    auto& [__VA_ARGS__] = message;    \
    return std::tie(__VA_ARGS__);     \
  }

namespace triptych::base {
TRIPTYCH_FIELDS(Grid, a, b, c)
}  // namespace triptych::base

namespace triptych::scheduler {

TRIPTYCH_FIELDS(SchedulerId, a, b)
TRIPTYCH_FIELDS(RequestId, a, b)
TRIPTYCH_FIELDS(TaskId, a, b)
TRIPTYCH_FIELDS(PeerAddress, a, b)
TRIPTYCH_FIELDS(TokenBias, a, b)
TRIPTYCH_FIELDS(SamplingParams, a, b, c, d, e, f, g, h, i, j)
TRIPTYCH_FIELDS(TokenLogprob, a, b)
TRIPTYCH_FIELDS(SampledToken, a, b, c)
TRIPTYCH_FIELDS(CacheRange, a, b, c, d, e)

TRIPTYCH_FIELDS(TransferKey, a, b, c, d)
TRIPTYCH_FIELDS(HeadRange, a, b)
TRIPTYCH_FIELDS(Offer, a, b, c, d, e, f, g, h)
TRIPTYCH_FIELDS(Grant, a)
TRIPTYCH_FIELDS(Deny, a, b)
TRIPTYCH_FIELDS(FirstToken, a, b)
TRIPTYCH_FIELDS(Ready, a, b, c, d, e, f, g)
TRIPTYCH_FIELDS(Go, a, b, c, d, e)
TRIPTYCH_FIELDS(PieceAcknowledged, a, b, c)
TRIPTYCH_FIELDS(AbortTransfer, a)

TRIPTYCH_FIELDS(AssignEncode, a, b, c, d, e, f, g, h, i, j, k)
TRIPTYCH_FIELDS(InputProducer, a, b)
TRIPTYCH_FIELDS(AssignPrefill, a, b, c, d, e, f, g, h, i, j)
TRIPTYCH_FIELDS(AssignDecode, a, b, c, d, e, f, g, h, i, j)
TRIPTYCH_FIELDS(BindConsumer, a, b, c)
TRIPTYCH_FIELDS(Rebind, a, b)
TRIPTYCH_FIELDS(ReleaseTask, a)
inline std::tuple<> Fields(DrainWorker&) { return {}; }

TRIPTYCH_FIELDS(Roles, a)
TRIPTYCH_FIELDS(WorkerProfile, a, b, c, d, e, f, g, h, i, j, k, l, m, n)
TRIPTYCH_FIELDS(TaskReport, a, b, c, d, e, f, g, h, i, j, k, l)
TRIPTYCH_FIELDS(StageLoad, a, b, c, d)
TRIPTYCH_FIELDS(WorkerReport, a, b, c, d, e, f, g, h, i, j)
TRIPTYCH_FIELDS(WorkerHello, a, b, c, d, e)
TRIPTYCH_FIELDS(TaskAccepted, a)
TRIPTYCH_FIELDS(TaskRefused, a, b, c, d)
TRIPTYCH_FIELDS(TaskDelivered, a)
TRIPTYCH_FIELDS(ItemLanded, a, b, c)
TRIPTYCH_FIELDS(FirstTokenSampled, a, b)
TRIPTYCH_FIELDS(DecodeStarted, a)
TRIPTYCH_FIELDS(TaskFailed, a, b, c, d, e)
TRIPTYCH_FIELDS(ConsumerUnreachable, a, b, c)

TRIPTYCH_FIELDS(ItemCost, a, b, c, d, e)
TRIPTYCH_FIELDS(SubmitRequest, a, b, c, d, e, f, g, h, i, j, k, l)
TRIPTYCH_FIELDS(RequestEnded, a)
TRIPTYCH_FIELDS(PassKey, a, b)
TRIPTYCH_FIELDS(GatewayHello, a, b, c, d, e, f, g, h, i, j)
TRIPTYCH_FIELDS(GatewayReport, a)
TRIPTYCH_FIELDS(RequestAdmitted, a, b)
TRIPTYCH_FIELDS(RequestFailed, a, b, c)
TRIPTYCH_FIELDS(ModelRoles, a, b)
TRIPTYCH_FIELDS(Membership, a, b, c, d)
TRIPTYCH_FIELDS(RequestProgress, a, b)
TRIPTYCH_FIELDS(PullRequest, a, b, c, d, e, f)
TRIPTYCH_FIELDS(TokenRun, a)
TRIPTYCH_FIELDS(Item, a, b, c, d, e)
TRIPTYCH_FIELDS(PulledInput, a, b, c, d, e, f, g)
TRIPTYCH_FIELDS(TokenBatch, a, b, c, d, e, f, g, h)
TRIPTYCH_FIELDS(TokenReply, a, b, c, d, e, f)

#undef TRIPTYCH_FIELDS

}  // namespace triptych::scheduler

namespace triptych::services::testing {

template <typename Id>
struct IsStrongId : std::false_type {};
template <typename Tag, typename Number>
struct IsStrongId<base::StrongId<Tag, Number>> : std::true_type {};

template <typename T>
constexpr int HighestOf() {
  if constexpr (std::is_same_v<T, scheduler::Deny::Reason>) return 3;
  if constexpr (std::is_same_v<T, scheduler::PayloadKind>) return 0;
  const bool pair = std::is_same_v<T, scheduler::TransferKind> ||
                    std::is_same_v<T, scheduler::Ready::Position> ||
                    std::is_same_v<T, scheduler::PieceAcknowledged::Verdict> ||
                    std::is_same_v<T, scheduler::ItemKind>;
  if constexpr (std::is_same_v<T, scheduler::RequestProgress::Milestone>) return 3;
  return pair ? 1 : 2;
}

// Fills messages with values that are in range, none of them a default.
class Filler {
 public:
  explicit Filler(uint64_t seed) : random_(seed) {}

  template <typename T>
  T Make() {
    T value{};
    Fill(value);
    return value;
  }
  // A message of the variant's alternative `index`.
  template <typename Variant, size_t index = 0>
  Variant MakeAlternative(size_t wanted) {
    if constexpr (index + 1 < std::variant_size_v<Variant>) {
      if (wanted != index) return MakeAlternative<Variant, index + 1>(wanted);
    }
    return Make<std::variant_alternative_t<index, Variant>>();
  }

 private:
  template <typename T>
  void Fill(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      value = random_.Below(2) == 1;
    } else if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(random_.Below(HighestOf<T>() + 1));
    } else if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<T>(random_.Uniform() + 0.25);
    } else if constexpr (std::is_integral_v<T>) {
      value = static_cast<T>(1 + random_.Below(sizeof(T) == 8 ? uint64_t{1} << 39 : 60'000));
    } else if constexpr (IsStrongId<T>::value) {
      const bool small = sizeof(value.value()) == 4;  // an epoch
      const uint64_t bits = small ? random_.Below(scheduler::kHighestEpoch) : random_.Next();
      value = T(static_cast<decltype(value.value())>(bits | 1));
    } else if constexpr (std::is_array_v<T>) {
      for (auto& element : value) Fill(element);
    } else {
      for (auto* field : {&value}) FillCompound(*field);
    }
  }
  void FillCompound(std::string& value) { value = "text" + std::to_string(random_.Next()); }
  void FillCompound(base::Duration& value) { value = base::Duration(1 + random_.Below(1u << 30)); }
  void FillCompound(absl::Status& value) {
    value = absl::Status(static_cast<absl::StatusCode>(1 + random_.Below(16)), "why");
  }
  void FillCompound(scheduler::Roles& value) { value.bits = 1 + random_.Below(7); }
  // Ranges have their begins before their ends.
  void FillCompound(scheduler::CacheRange& value) {
    std::apply([&](auto&... fields) { (Fill(fields), ...); }, Fields(value));
    value.token_end += value.token_begin;
    value.layer_end += value.layer_begin;
  }
  void FillCompound(scheduler::Offer& value) {
    std::apply([&](auto&... fields) { (Fill(fields), ...); }, Fields(value));
    value.heads.end += value.heads.begin;
    value.num_tokens += value.from_token;
  }
  template <typename T>
  void FillCompound(std::vector<T>& value) {
    value.resize(1 + random_.Below(3));
    for (T& element : value) Fill(element);
  }
  template <typename T>
  void FillCompound(std::optional<T>& value) {
    if (random_.Below(2) == 1) value = Make<T>();
  }
  template <typename... T>
  void FillCompound(std::variant<T...>& value) {
    value = MakeAlternative<std::variant<T...>>(random_.Below(sizeof...(T)));
  }
  template <typename T>
  void FillCompound(T& message) {
    std::apply([&](auto&... fields) { (Fill(fields), ...); }, Fields(message));
  }

  base::SeededRandom random_;
};

template <typename T>
bool Same(T& a, T& b);

template <typename T>
bool SameCompound(std::vector<T>& a, std::vector<T>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!Same(a[i], b[i])) return false;
  }
  return true;
}
template <typename T>
bool SameCompound(std::optional<T>& a, std::optional<T>& b) {
  return a.has_value() == b.has_value() && (!a.has_value() || Same(*a, *b));
}
template <typename... T>
bool SameCompound(std::variant<T...>& a, std::variant<T...>& b) {
  if (a.index() != b.index()) return false;
  return std::visit([&](auto& m) { return Same(m, std::get<std::decay_t<decltype(m)>>(b)); }, a);
}
template <typename T>
bool SameCompound(T& a, T& b) {
  return std::apply(
      [&](auto&... x) {
        return std::apply([&](auto&... y) { return (Same(x, y) && ...); }, Fields(b));
      },
      Fields(a));
}

template <typename T>
bool Same(T& a, T& b) {
  if constexpr (std::is_array_v<T>) {
    for (size_t i = 0; i < std::extent_v<T>; ++i) {
      if (!Same(a[i], b[i])) return false;
    }
    return true;
  } else if constexpr (std::is_scalar_v<T> || IsStrongId<T>::value ||
                       std::is_same_v<T, std::string> || std::is_same_v<T, base::Duration> ||
                       std::is_same_v<T, absl::Status>) {
    return a == b;
  } else {
    return SameCompound(a, b);
  }
}

}  // namespace triptych::services::testing
