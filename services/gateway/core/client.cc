#include "services/gateway/core/client.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace triptych::services {
namespace {

// The first four groups of an IPv6 address, zeros written out as the text has them not.
std::string FirstHalf(absl::string_view address) {
  int groups[8] = {}, count = 0, gap = -1;
  for (size_t i = 0; i < address.size() && count < 8;) {
    if (address.substr(i, 2) == "::") {
      gap = count;
      i += 2;
      continue;
    }
    if (address[i] == ':') ++i;
    int value = 0;
    size_t digits = 0;
    for (; i < address.size() && absl::ascii_isxdigit(static_cast<unsigned char>(address[i]));
         ++i, ++digits) {
      const char c = absl::ascii_tolower(static_cast<unsigned char>(address[i]));
      value = value * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (digits == 0 || digits > 4) break;  // a zone, or an IPv4 tail
    groups[count++] = value;
  }
  // What follows the gap belongs at the end: in the first half the gap leaves zeros.
  const int before = gap < 0 ? count : gap;
  const int after = gap < 0 ? 0 : count - gap;
  std::string text = "v6";
  for (int i = 0; i < 4; ++i) {
    const int from_end = i - (8 - after);
    const int group = i < before ? groups[i] : from_end >= 0 ? groups[gap + from_end] : 0;
    absl::StrAppend(&text, "-", absl::Hex(group));
  }
  return text;
}

}  // namespace

Client ClientAt(absl::string_view address, std::string connection) {
  constexpr absl::string_view kMapped = "::ffff:";
  if (absl::StartsWith(address, kMapped) && address.find('.') != absl::string_view::npos) {
    address.remove_prefix(kMapped.size());
  }
  const bool six = address.find(':') != absl::string_view::npos;
  return {.owner = std::move(connection),
          .tenant = six               ? FirstHalf(address)
                    : address.empty() ? "local"
                                      : std::string(address)};
}

Client ClientOfPeer(const std::string& peer) {
  absl::string_view rest = peer;
  rest.remove_prefix(std::min(rest.size(), rest.find(':') + 1));
  rest = rest.substr(0, rest.rfind(':'));
  // Brackets come as they are or in their escaped form.
  for (const absl::string_view bracket : {"[", "%5B"}) {
    if (absl::StartsWith(rest, bracket)) rest.remove_prefix(bracket.size());
  }
  for (const absl::string_view bracket : {"]", "%5D"}) {
    if (absl::EndsWith(rest, bracket)) rest.remove_suffix(bracket.size());
  }
  return ClientAt(rest, peer);
}

}  // namespace triptych::services
