// triptych-media-decoder: decodes pictures that come over the socket that it was started with,
// until that closes. Started by sandbox.h; of no use by hand.

#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "base/version.h"
#include "media/confinement.h"
#include "media/decode.h"
#include "media/decoder_protocol.h"
#include "media/syscall_filter.h"

namespace triptych::media {
namespace {

// The most memory a decode takes beside its input, in bytes a pixel: a progressive CMYK JPEG has 8
// of coefficients, then 3 of RGB and 3 of the turned copy; 2 are to spare.
constexpr int64_t kBytesPerPixel = 16;
constexpr int64_t kSlackBytes = int64_t{64} << 20;

bool ReceiveAll(void* bytes, size_t size) {
  auto* next = static_cast<char*>(bytes);
  while (size > 0) {
    const ssize_t received = recv(kDecoderSocket, next, size, 0);
    if (received <= 0) return false;
    next += received;
    size -= static_cast<size_t>(received);
  }
  return true;
}

bool SendAll(const void* bytes, size_t size) {
  const auto* next = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t sent = send(kDecoderSocket, next, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    next += sent;
    size -= static_cast<size_t>(sent);
  }
  return true;
}

DecodeOutcome OutcomeOf(const absl::Status& status) {
  if (status.ok()) return DecodeOutcome::kOk;
  if (status == ImageTooLarge()) return DecodeOutcome::kTooLarge;
  if (status == UnsupportedImageFormat()) return DecodeOutcome::kUnsupported;
  return DecodeOutcome::kMalformed;
}

// What a person who starts it by hand is told; its exit code.
int Explain(absl::string_view argument) {
  if (argument == "--version") {
    std::printf("triptych %s\n", base::kVersion);
    return 0;
  }
  const bool asked = argument == "--help" || argument == "-h";
  std::fputs(
      "triptych-media-decoder: decodes one picture after another, confined, for the worker that\n"
      "starts it and talks to it over a socket at descriptor 0. It has no flags but --version, "
      "and\n"
      "does nothing when it is started by hand.\n",
      asked ? stdout : stderr);
  return asked ? 0 : 2;
}

// Serves one picture; false at the end of the connection.
bool ServeOne() {
  DecodeRequestHeader request;
  if (!ReceiveAll(&request, sizeof(request))) return false;
  std::string bytes(static_cast<size_t>(request.size_bytes), '\0');
  if (!ReceiveAll(bytes.data(), bytes.size())) return false;
  const absl::StatusOr<base::Image> image =
      DecodeImage(bytes, request.limits, static_cast<int>(request.eighths));
  DecodeReplyHeader reply{.outcome = OutcomeOf(image.status())};
  if (!image.ok()) return SendAll(&reply, sizeof(reply));
  reply.width = image->width;
  reply.height = image->height;
  return SendAll(&reply, sizeof(reply)) && SendAll(image->pixels.data(), image->pixels.size());
}

}  // namespace
}  // namespace triptych::media

int main(int argc, char** argv) {
  using triptych::media::Limits;
  if (argc > 1) return triptych::media::Explain(argv[1]);
  const Limits most;
  if (!triptych::media::Confine(most.max_bytes + most.max_pixels * triptych::media::kBytesPerPixel +
                                triptych::media::kSlackBytes)) {
    return 1;
  }
  // Nothing is decoded without the filter.
  if (!triptych::media::FilterSystemCalls()) return 1;
  while (triptych::media::ServeOne()) {
  }
  return 0;
}
