// Defended: roles read what they print and nothing else; identities order as their parts do, since
// machines sort by them before they decide.

#include <catch2/catch.hpp>

#include "scheduler/plan/ids.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::scheduler {

TEST_CASE("Roles: every subset reads what it prints", "[scheduler][plan]") {
  for (int bits = 1; bits < 8; ++bits) {
    Roles roles;
    roles.bits = static_cast<uint8_t>(bits);
    Roles read;
    CAPTURE(ToString(roles));
    REQUIRE(ParseRoles(ToString(roles), &read));
    CHECK(read == roles);
  }
}

TEST_CASE("Roles: anything else is refused", "[scheduler][plan]") {
  const char* text = GENERATE("", "+", "encoder", "encode+", "+decode", "encode,decode", "Encode");
  CAPTURE(text);
  Roles roles;
  CHECK_FALSE(ParseRoles(text, &roles));
}

TEST_CASE("SchedulerId: the term decides, the incarnation breaks ties", "[scheduler][plan]") {
  const SchedulerId low{1, Incarnation(9)}, high{2, Incarnation(3)}, tie{2, Incarnation(4)};
  CHECK(low < high);
  CHECK(high < tie);
  CHECK(SchedulerId{} < low);
}

TEST_CASE("Identities: text tells different ones apart", "[scheduler][plan]") {
  CHECK(ToString(RequestId{Incarnation(1), 2}) != ToString(RequestId{Incarnation(2), 1}));
  const SchedulerId scheduler{1, Incarnation(5)};
  CHECK(ToString(TaskId{scheduler, 1}) != ToString(TaskId{scheduler, 2}));
}

}  // namespace triptych::scheduler
