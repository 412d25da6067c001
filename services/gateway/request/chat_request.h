#pragma once

// A client's request as either front end read it: the same fields whether it came as JSON or as
// protobuf, and nothing checked but the types. Intake turns it into a ParsedRequest.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/request/layout.h"

namespace triptych::services {

// A picture (one frame) or a video, as files: the bytes say of what format.
struct ChatMedia {
  scheduler::ItemKind kind = scheduler::ItemKind::kImage;
  std::vector<std::string> frames;
  double fps = 0;  // 0: the default of 2
};

using ChatPart = std::variant<std::string, ChatMedia>;

struct ChatMessage {
  std::string role;
  std::vector<ChatPart> parts;
};

// What is continued as it stands, without the chat's template: a text, or token ids.
using RawPrompt = std::variant<std::string, std::vector<int64_t>>;

struct ChatRequest {
  std::string client_id;  // of this request alone; empty: the gateway draws one
  std::string tag;        // what the client calls it in its own logs; any number may share one
  std::string model;      // empty: the one that is served
  std::vector<ChatMessage> messages;
  std::optional<RawPrompt> prompt;  // instead of messages
  double temperature = 0;
  double top_p = 1;
  int64_t top_k = 0;
  double min_p = 0;
  double repetition_penalty = 1;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::vector<std::pair<int64_t, double>> logit_bias;  // token id and what is added to its logit
  std::vector<std::string> bad_words;                  // never drawn
  std::optional<uint64_t> seed;                        // unset: another one for each request
  int64_t top_logprobs = -1;                           // -1: no log probabilities
  std::optional<int64_t> max_tokens;
  int64_t min_tokens = 0;  // before these are sampled nothing ends the answer
  bool ignore_eos = false;
  std::vector<int64_t> stop_token_ids;  // end the answer too
  std::vector<std::string> stop;
  bool include_stop = false;        // what ended the answer stays in its text
  bool skip_special_tokens = true;  // control tokens have no text
  int64_t timeout_ms = 0;           // 0: the server's maximum
  std::string tenant;
  int64_t priority = 0;
  int64_t choices = 1;  // answers to the one prompt
};

}  // namespace triptych::services
