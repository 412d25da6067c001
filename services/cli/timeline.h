#pragma once

// How an answer's timeline is shown. Pure.

#include <string>

#include "services/cli/conversation.h"

namespace triptych::services {

// "12.3 ms", "1.50 s"; "-" for a phase that did not occur (0).
std::string FormatMicroseconds(int64_t us);
// "812 B", "1.5 KiB", "2.0 MiB".
std::string FormatBytes(int64_t bytes);
// One line: queue, media decode, encode, embedding transfer, prefill, KV transfer, first token,
// tokens per second.
std::string FormatTimeline(const v1::Timeline& timeline);
// The answer with its usage and timeline as one JSON object without a newline.
std::string AnswerJson(const Answer& answer);

}  // namespace triptych::services
