#include "services/gateway/request/grpc_request.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <utility>

#include "services/gateway/request/errors.h"
#include "services/gateway/request/inline_media.h"

namespace triptych::services {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

// Whether `in` holds a message of that type with at most `*left` fields, its messages' included.
// Groups are of no message of ours.
bool CountFields(const Descriptor& type, CodedInputStream* in, int* left) {
  for (uint32_t tag = in->ReadTag(); tag != 0; tag = in->ReadTag()) {
    const WireFormatLite::WireType wire = WireFormatLite::GetTagWireType(tag);
    if (--*left < 0 || wire == WireFormatLite::WIRETYPE_START_GROUP) return false;
    const FieldDescriptor* field = type.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    if (field == nullptr || field->message_type() == nullptr ||
        wire != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      if (!WireFormatLite::SkipField(in, tag)) return false;
      continue;
    }
    int size = 0;
    if (!in->ReadVarintSizeAsInt(&size)) return false;
    const CodedInputStream::Limit limit = in->PushLimit(size);
    if (!CountFields(*field->message_type(), in, left) || in->BytesUntilLimit() != 0) return false;
    in->PopLimit(limit);
  }
  return in->ConsumedEntireMessage();
}

ChatMedia TakeImage(v1::Image* image) {
  ChatMedia media;
  media.frames.push_back(std::move(*image->mutable_data()));
  return media;
}

ChatMedia TakeVideo(v1::Video* video) {
  ChatMedia media;
  media.kind = scheduler::ItemKind::kVideo;
  media.fps = video->fps();
  for (v1::Image& frame : *video->mutable_frames()) {
    media.frames.push_back(std::move(*frame.mutable_data()));
  }
  return media;
}

absl::StatusOr<ChatPart> TakePart(v1::ContentPart* part) {
  switch (part->part_case()) {
    case v1::ContentPart::kText:
      return ChatPart(std::move(*part->mutable_text()));
    case v1::ContentPart::kImage:
      return ChatPart(TakeImage(part->mutable_image()));
    case v1::ContentPart::kVideo:
      return ChatPart(TakeVideo(part->mutable_video()));
    case v1::ContentPart::PART_NOT_SET:
      break;
  }
  return Refuse("invalid_request", "a content part is text, image or video");
}

void TakeSampling(const v1::SamplingParams& sampling, ChatRequest* chat) {
  chat->temperature = sampling.temperature();
  if (sampling.has_top_p()) chat->top_p = sampling.top_p();
  chat->top_k = sampling.top_k();
  chat->seed = sampling.seed();
  chat->min_p = sampling.min_p();
  if (sampling.has_repetition_penalty()) chat->repetition_penalty = sampling.repetition_penalty();
  chat->presence_penalty = sampling.presence_penalty();
  chat->frequency_penalty = sampling.frequency_penalty();
  for (const v1::TokenBias& bias : sampling.biases()) {
    chat->logit_bias.emplace_back(bias.token(), bias.bias());
  }
  if (sampling.has_top_logprobs()) chat->top_logprobs = sampling.top_logprobs();
}

}  // namespace

absl::StatusOr<v1::GenerateRequest> ReadGenerateRequest(const grpc::ByteBuffer& bytes) {
  const absl::Status unreadable = Refuse("invalid_request", "the message cannot be read");
  grpc::ByteBuffer shared = bytes;  // a reference: readers want one that is not const
  int left = kMaxRequestFields;
  {
    grpc::ProtoBufferReader reader(&shared);
    CodedInputStream in(&reader);
    if (!CountFields(*v1::GenerateRequest::descriptor(), &in, &left)) return unreadable;
  }
  grpc::ProtoBufferReader reader(&shared);
  v1::GenerateRequest request;
  if (!request.ParseFromZeroCopyStream(&reader)) return unreadable;
  return request;
}

absl::StatusOr<ChatRequest> FromProto(v1::GenerateRequest&& request) {
  ChatRequest chat;
  chat.client_id = std::move(*request.mutable_request_id());
  chat.model = std::move(*request.mutable_model());
  if (request.has_sampling()) TakeSampling(request.sampling(), &chat);
  if (request.has_max_tokens()) chat.max_tokens = request.max_tokens();
  for (std::string& stop : *request.mutable_stop()) chat.stop.push_back(std::move(stop));
  for (std::string& word : *request.mutable_bad_words()) chat.bad_words.push_back(std::move(word));
  chat.min_tokens = request.min_tokens();
  chat.ignore_eos = request.ignore_eos();
  chat.stop_token_ids.assign(request.stop_token_ids().begin(), request.stop_token_ids().end());
  chat.include_stop = request.include_stop();
  chat.skip_special_tokens = !request.keep_special_tokens();
  chat.timeout_ms = request.timeout_ms();
  chat.tenant = std::move(*request.mutable_tenant());
  chat.priority = request.priority();
  int items = 0;
  for (v1::Message& message : *request.mutable_messages()) {
    ChatMessage& to = chat.messages.emplace_back();
    to.role = std::move(*message.mutable_role());
    for (v1::ContentPart& part : *message.mutable_content()) {
      if (part.part_case() != v1::ContentPart::kText && ++items > kMaxItems) {
        return Refuse("too_many_images");
      }
      absl::StatusOr<ChatPart> taken = TakePart(&part);
      if (!taken.ok()) return taken.status();
      to.parts.push_back(*std::move(taken));
    }
  }
  return chat;
}

}  // namespace triptych::services
