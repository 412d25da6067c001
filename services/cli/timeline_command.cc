#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/config.h"
#include "base/status.h"
#include "services/cli/cluster_record.h"
#include "services/cli/commands.h"
#include "services/cli/timeline.h"
#include "services/runtime/http_call.h"

namespace triptych::services {
namespace {

constexpr base::Duration kCallTimeout = std::chrono::seconds(2);

// The admin port of the gateway of a local cluster; `server` itself where it is of none.
absl::StatusOr<std::string> AdminOf(const std::string& server) {
  const absl::StatusOr<ClusterRecord> cluster = FindCluster(ClusterRecordFolder(), server);
  if (!cluster.ok()) {
    if (server.empty()) return cluster.status();
    return server;
  }
  for (const ProcessRecord& process : cluster->processes) {
    if (process.roles == "gateway" && !process.admin.empty()) return process.admin;
  }
  return absl::UnavailableError("the cluster's gateway does not run");
}

absl::StatusOr<std::string> Describe(const std::string& body) {
  const nlohmann::json json = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  try {
    const nlohmann::json& times = json.at("timeline");
    v1::Timeline timeline;
    timeline.set_queue_us(times.at("queue_us"));
    timeline.set_media_decode_us(times.at("media_decode_us"));
    timeline.set_encode_us(times.at("encode_us"));
    timeline.set_embedding_transfer_us(times.at("embedding_transfer_us"));
    timeline.set_embedding_bytes(times.at("embedding_bytes"));
    timeline.set_prefill_us(times.at("prefill_us"));
    timeline.set_kv_transfer_us(times.at("kv_transfer_us"));
    timeline.set_kv_bytes(times.at("kv_bytes"));
    timeline.set_first_token_us(times.at("first_token_us"));
    timeline.set_total_us(times.at("total_us"));
    timeline.set_tokens_per_second(times.at("tokens_per_second"));
    const nlohmann::json& usage = json.at("usage");
    const auto text = [&](const char* key) { return json.at(key).get<std::string>(); };
    return absl::StrCat(text("id"), ", ", text("request_id"), " in the logs: ", text("result"),
                        ", ", usage.at("prompt_tokens").get<int64_t>(), " prompt tokens, ",
                        usage.at("picture_tokens").get<int64_t>(), " of them pictures, ",
                        usage.at("output_tokens").get<int64_t>(), " of the answer\n",
                        FormatTimeline(timeline), "\n");
  } catch (const nlohmann::json::exception&) {
    return absl::InternalError("the gateway's answer cannot be read");
  }
}

absl::StatusOr<std::string> Look(const std::string& server, const std::string& request, bool json) {
  ASSIGN_OR_RETURN(const std::string admin, AdminOf(server));
  ASSIGN_OR_RETURN(const HttpReply reply,
                   HttpGet(admin, absl::StrCat("/timeline/", request), kCallTimeout));
  if (reply.status != 200) {
    return absl::NotFoundError(
        absl::StrCat(request, " is not among the last 1,000 requests that ended at ", admin));
  }
  if (json) return reply.body;
  return Describe(reply.body);
}

}  // namespace

int RunTimeline(int argc, const char* const* argv) {
  std::string server;
  bool json = false;
  base::FlagSet flags(
      "triptych timeline [flags] REQUEST: where its time went; REQUEST is an answer's id, a "
      "request_id of the logs, or an X-Request-Id",
      base::Positional::kKeep);
  flags.AddString(&server, {.name = "server",
                            .doc = "host:port of a local cluster, or of a gateway's admin port; "
                                   "empty: the local cluster"});
  flags.AddBool(&json, {.name = "json", .doc = "for programs"});
  if (const int code = base::ParseCommandLine(argc, argv, &flags); code >= 0) return code;
  if (flags.positional().size() != 1 ||
      flags.positional()[0].find_first_of(" \r\n?#") != std::string::npos) {
    std::fputs("triptych timeline: want one request\n", stderr);
    return 2;
  }
  const absl::StatusOr<std::string> text = Look(server, flags.positional()[0], json);
  if (!text.ok()) {
    std::fprintf(stderr, "triptych timeline: %s\n", text.status().ToString().c_str());
    return 1;
  }
  std::fputs(text->c_str(), stdout);
  return 0;
}

}  // namespace triptych::services
