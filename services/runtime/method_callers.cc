#include "services/runtime/method_callers.h"

namespace triptych::services {
namespace {

using base::Role;

struct Row {
  absl::string_view method;
  base::RoleSet callers;
};

constexpr Row kRows[] = {
    {"/triptych.v1.Scheduler/WorkerControl", {Role::kWorker}},
    {"/triptych.v1.Scheduler/GatewayControl", {Role::kGateway}},
    {"/triptych.v1.Cluster/GetSnapshot", {Role::kOperator, Role::kGateway}},
    {"/triptych.v1.Cluster/Watch", {Role::kOperator, Role::kGateway}},
    {"/triptych.v1.Cluster/Drain", {Role::kOperator}},
    {"/triptych.v1.Payload/Pull", {Role::kWorker}},
    {"/triptych.v1.Tokens/Stream", {Role::kWorker}},
    {"/triptych.v1.Transfer/Handshake", {Role::kWorker}},
    {"/triptych.v1.Transfer/Move", {Role::kWorker}},
    {"/grpc.health.v1.Health/Check",
     {Role::kGateway, Role::kScheduler, Role::kWorker, Role::kOperator}},
    {"/grpc.health.v1.Health/Watch", {Role::kOperator}},
};

}  // namespace

base::RoleSet CallersOfMethod(absl::string_view method) {
  for (const Row& row : kRows) {
    if (row.method == method) return row.callers;
  }
  return {};
}

}  // namespace triptych::services
