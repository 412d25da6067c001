#include "services/cli/timeline.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace triptych::services {
namespace {

const char* FinishName(v1::Finish finish) {
  return finish == v1::FINISH_LENGTH ? "length" : "stop";
}

}  // namespace

std::string FormatMicroseconds(int64_t us) {
  if (us <= 0) return "-";
  if (us < 1'000'000) return absl::StrFormat("%.1f ms", static_cast<double>(us) / 1e3);
  return absl::StrFormat("%.2f s", static_cast<double>(us) / 1e6);
}

std::string FormatBytes(int64_t bytes) {
  const double size = static_cast<double>(bytes);
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  if (bytes < 1 << 20) return absl::StrFormat("%.1f KiB", size / 1024);
  return absl::StrFormat("%.1f MiB", size / (1 << 20));
}

std::string FormatTimeline(const v1::Timeline& t) {
  const auto transfer = [](int64_t us, int64_t bytes) {
    if (us <= 0 && bytes <= 0) return std::string("-");
    return absl::StrCat(FormatMicroseconds(us), " (", FormatBytes(bytes), ")");
  };
  return absl::StrCat(
      "queue ", FormatMicroseconds(t.queue_us()), " | media decode ",
      FormatMicroseconds(t.media_decode_us()), " | encode ", FormatMicroseconds(t.encode_us()),
      " | embedding transfer ", transfer(t.embedding_transfer_us(), t.embedding_bytes()),
      " | prefill ", FormatMicroseconds(t.prefill_us()), " | KV transfer ",
      transfer(t.kv_transfer_us(), t.kv_bytes()), " | first token ",
      FormatMicroseconds(t.first_token_us()), " | total ", FormatMicroseconds(t.total_us()),
      absl::StrFormat(" | %.1f tokens/s", t.tokens_per_second()));
}

std::string AnswerJson(const Answer& answer) {
  const v1::Timeline& t = answer.timeline;
  const v1::Usage& u = answer.usage;
  const nlohmann::ordered_json json = {{"text", answer.text},
                                       {"finish", FinishName(answer.finish)},
                                       {"usage",
                                        {{"prompt_tokens", u.prompt_tokens()},
                                         {"picture_tokens", u.picture_tokens()},
                                         {"cached_tokens", u.cached_tokens()},
                                         {"output_tokens", u.output_tokens()}}},
                                       {"timeline",
                                        {{"queue_us", t.queue_us()},
                                         {"media_decode_us", t.media_decode_us()},
                                         {"encode_us", t.encode_us()},
                                         {"embedding_transfer_us", t.embedding_transfer_us()},
                                         {"embedding_bytes", t.embedding_bytes()},
                                         {"prefill_us", t.prefill_us()},
                                         {"kv_transfer_us", t.kv_transfer_us()},
                                         {"kv_bytes", t.kv_bytes()},
                                         {"first_token_us", t.first_token_us()},
                                         {"total_us", t.total_us()},
                                         {"tokens_per_second", t.tokens_per_second()}}}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace triptych::services
