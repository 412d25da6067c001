#include "services/gateway/request/base64.h"

#include <array>
#include <cstdint>

namespace triptych::services {
namespace {

constexpr uint32_t kBad = 0xff000000;

// Each character's six bits, shifted for each of the four places of a group: four look-ups and
// three ORs a group, and any bad character shows in the top byte.
constexpr std::array<std::array<uint32_t, 256>, 4> MakeTables() {
  constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<std::array<uint32_t, 256>, 4> tables{};
  for (int place = 0; place < 4; ++place) {
    for (uint32_t& entry : tables[place]) entry = kBad;
    for (uint32_t i = 0; i < 64; ++i) {
      tables[place][static_cast<unsigned char>(kAlphabet[i])] = i << (18 - 6 * place);
    }
  }
  return tables;
}
constexpr auto kTables = MakeTables();

uint32_t Group(const unsigned char* p) {
  return kTables[0][p[0]] | kTables[1][p[1]] | kTables[2][p[2]] | kTables[3][p[3]];
}

}  // namespace

bool DecodeBase64(absl::string_view text, std::string* bytes) {
  if (text.size() % 4 != 0) return false;
  if (text.empty()) return true;
  size_t padding = 0;
  if (text.back() == '=') padding = text[text.size() - 2] == '=' ? 2 : 1;
  const size_t start = bytes->size();
  const size_t groups = text.size() / 4;
  bytes->resize(start + groups * 3);
  const auto* in = reinterpret_cast<const unsigned char*>(text.data());
  char* out = bytes->data() + start;
  uint32_t seen = 0;
  const size_t whole = padding == 0 ? groups : groups - 1;
  for (size_t i = 0; i < whole; ++i, in += 4, out += 3) {
    const uint32_t bits = Group(in);
    seen |= bits;
    out[0] = static_cast<char>(bits >> 16);
    out[1] = static_cast<char>(bits >> 8);
    out[2] = static_cast<char>(bits);
  }
  if (padding > 0) {
    const unsigned char last[4] = {in[0], in[1],
                                   padding == 2 ? static_cast<unsigned char>('A') : in[2], 'A'};
    const uint32_t bits = Group(last);
    seen |= bits;
    const uint32_t unused = padding == 2 ? 0xffff : 0xff;
    if ((bits & unused) != 0) return false;
    out[0] = static_cast<char>(bits >> 16);
    if (padding == 1) out[1] = static_cast<char>(bits >> 8);
    bytes->resize(bytes->size() - padding);
  }
  return (seen & kBad) == 0;
}

}  // namespace triptych::services
