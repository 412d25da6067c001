// Defends that a client that goes away costs nothing afterwards, and that a stop leaves nothing.

#include <signal.h>

#include <catch2/catch.hpp>

#include "base/rpc.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"

namespace triptych::testing {
namespace {

// Reads until the first text and hangs up.
void AskAndLeave(v1::Inference::Stub* stub, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  const auto stream = stub->Generate(&context, request);
  v1::GenerateResponse response;
  while (stream->Read(&response) && response.text().empty()) {
  }
  context.TryCancel();
  stream->Finish();
}

TEST_CASE("Departure: what a client held is free within a second of its leaving",
          "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1");
  const auto stub = v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc()));
  for (Question& question : ExampleQuestions()) AskAndLeave(stub.get(), question.request);
  for (Question& question : LongQuestions(4, 1000)) AskAndLeave(stub.get(), question.request);
  const bool freed =
      Eventually(std::chrono::seconds(1), [&] { return cluster.HeldResources() == 0; });
  INFO(cluster.HeldResourcesByName());
  CHECK(freed);
}

TEST_CASE("Departure: a stop leaves no process and no record", "[integration][serial]") {
  Cluster cluster("encode+prefill+decode=1");
  const services::ClusterRecord record = cluster.Record();
  CHECK(record.processes.size() == 3);
  CHECK(cluster.Stop());
  for (const services::ProcessRecord& process : record.processes) {
    INFO(process.name);
    CHECK(kill(static_cast<pid_t>(process.pid), 0) != 0);
  }
  CHECK(!services::FindCluster(services::ClusterRecordFolder(), cluster.grpc()).ok());
}

}  // namespace
}  // namespace triptych::testing
