// Defends that other commands find the right cluster, and only one that lives.

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "services/cli/cluster_record.h"
#include "services/cli/flag_list.h"

namespace triptych::services {
namespace {

class Folder {
 public:
  Folder() {
    std::string pattern = "/tmp/triptych-test-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  void Write(const ClusterRecord& record, int number) const {
    REQUIRE(WriteClusterRecord(ClusterRecordPath(path, number), record).ok());
  }
  std::string path;
};

ClusterRecord Living(const std::string& grpc) {
  return {.supervisor_pid = getpid(),
          .http = "h:1",
          .grpc = grpc,
          .scheduler = "s:1",
          .processes = {{.name = "gateway", .roles = "gateway", .pid = 5, .restarts = 2}}};
}

TEST_CASE("Cluster record: what was written is read", "[services][cli]") {
  const Folder folder;
  folder.Write(Living("g:1"), 1);
  const auto record = FindCluster(folder.path, "");
  REQUIRE(record.ok());
  CHECK(record->grpc == "g:1");
  REQUIRE(record->processes.size() == 1);
  CHECK(record->processes[0].name == "gateway");
  CHECK(record->processes[0].restarts == 2);
}

TEST_CASE("Cluster record: an address finds its own cluster among several", "[services][cli]") {
  const Folder folder;
  folder.Write(Living("g:1"), 1);
  folder.Write(Living("g:2"), 2);
  CHECK(FindCluster(folder.path, "g:1")->grpc == "g:1");
  CHECK(FindCluster(folder.path, "g:2")->grpc == "g:2");
  CHECK(FindCluster(folder.path, "g:3").status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("Cluster record: nobody guesses between several", "[services][cli]") {
  const Folder folder;
  folder.Write(Living("g:2"), 1);
  folder.Write(Living("g:1"), 2);
  ClusterRecord gone = Living("g:3");
  gone.supervisor_pid = 0;
  folder.Write(gone, 3);
  const auto record = FindCluster(folder.path, "");
  CHECK(record.status().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(absl::EndsWith(record.status().message(), ": g:1, g:2"));
}

TEST_CASE("Cluster record: one of a supervisor that is gone is passed over", "[services][cli]") {
  const Folder folder;
  ClusterRecord gone = Living("g:1");
  gone.supervisor_pid = 0;
  folder.Write(gone, 1);
  std::ofstream(folder.path + "/cluster-2.json") << "not JSON";
  CHECK(FindCluster(folder.path, "").status().code() == absl::StatusCode::kNotFound);
  CHECK(ReadClusterRecord(folder.path + "/cluster-2.json").status().code() ==
        absl::StatusCode::kInvalidArgument);
}

TEST_CASE("Repeated flags: each value is kept in order, the rest is left", "[services][cli]") {
  const char* argv[] = {"ask",           "--image", "a.png",   "--json",  "--frames=b,c",
                        "--image=d.png", "--",      "--image", "question"};
  const auto split = TakeRepeated(9, argv, {"image", "frames"});
  REQUIRE(split.ok());
  REQUIRE(split->repeated.size() == 3);
  CHECK(split->repeated[0].value == "a.png");
  CHECK(split->repeated[1].name == "frames");
  CHECK(split->repeated[1].value == "b,c");
  CHECK(split->repeated[2].value == "d.png");
  REQUIRE(split->rest.size() == 5);
  CHECK(std::string(split->rest[1]) == "--json");
  CHECK(std::string(split->rest[3]) == "--image");
}

TEST_CASE("Repeated flags: one without a value is refused", "[services][cli]") {
  const char* argv[] = {"ask", "--image"};
  CHECK(TakeRepeated(2, argv, {"image"}).status().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace triptych::services
