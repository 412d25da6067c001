// Defended: gateways always know whom the scheduler knows, and which stages of which model have a
// worker that takes work; what drains or is lost no longer counts.

#include "tests/scheduler/cluster/cluster_fixture.h"

namespace triptych::scheduler {
namespace {

constexpr uint64_t kGateway = ClusterFixture::kGateway;

}  // namespace

TEST_CASE("ClusterScheduler: a gateway hears of each stage that comes, goes or drains",
          "[scheduler][cluster]") {
  ClusterFixture cluster;
  cluster.Gateway(kGateway);
  CHECK(cluster.RolesTold().empty());
  CHECK(cluster.memberships.at(kGateway).peers == std::vector<Incarnation>{Incarnation(kGateway)});
  cluster.Worker(1, "E");
  CHECK(cluster.RolesTold() == "E");
  cluster.Worker(2, "PD");
  CHECK(cluster.RolesTold() == "EPD");
  CHECK(cluster.memberships.at(kGateway).peers.size() == 3);
  cluster.Worker(3, "D");
  cluster.Lose(2);
  CHECK(cluster.RolesTold() == "ED");
  cluster.Worker(4, "P");
  CHECK(cluster.RolesTold() == "EPD");
  cluster.scheduler.Drain(Incarnation(3), cluster.now);
  cluster.Drain();
  CHECK(cluster.RolesTold() == "EP");
  cluster.Pass(seconds(5), /*silent=*/1);
  CHECK(cluster.RolesTold() == "P");
  WorkerReport report = cluster.workers[4].Report();
  report.draining = true;
  cluster.Say(4, report);
  CHECK(cluster.RolesTold().empty());
}

TEST_CASE("ClusterScheduler: stages are told by model", "[scheduler][cluster]") {
  ClusterFixture cluster;
  WorkerProfile other = ProfileOf(2, "PD");
  other.fingerprint = "other";
  cluster.Worker(1, "EP");
  cluster.Worker(other);
  cluster.Gateway(kGateway);
  CHECK(cluster.RolesTold("model") == "EP");
  CHECK(cluster.RolesTold("other") == "PD");
  cluster.Submit({.request = {Incarnation(kGateway), 1},
                  .fingerprint = "nobody's",
                  .prompt_tokens = 1,
                  .max_tokens = 1});
  cluster.Lose(2);
  REQUIRE(cluster.memberships.at(kGateway).models.size() == 1);
}

}  // namespace triptych::scheduler
