// What is defended: no header, however wrong, makes the reader touch a byte outside the file; every
// wrong one is INVALID_ARGUMENT. Files are written by the tests.

#include "models/weights/safetensors.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <random>

#include "tests/models/weights/temporary_file.h"

namespace triptych::models {
namespace {

using testing::TemporaryFile;

// A file with `header` and `data_bytes` zero bytes after it.
std::string FileText(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  std::string text(sizeof(size), '\0');
  std::memcpy(text.data(), &size, sizeof(size));
  return text + header + std::string(data_bytes, '\0');
}

absl::StatusCode OpenCode(const std::string& text) {
  const TemporaryFile file(text);
  return SafetensorsFile::Open(file.path()).status().code();
}

absl::StatusCode HeaderCode(const std::string& header, size_t data_bytes) {
  return OpenCode(FileText(header, data_bytes));
}

}  // namespace

TEST_CASE("SafetensorsFile: tensors are found with their type, shape and bytes",
          "[models][weights]") {
  std::string text =
      FileText(R"({"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
               R"("n":{"dtype":"I64","shape":[1,1],"data_offsets":[8,16]},)"
               R"("h":{"dtype":"BF16","shape":[2],"data_offsets":[16,20]},)"
               R"("empty":{"dtype":"F32","shape":[0,4],"data_offsets":[20,20]}})",
               20);
  const float floats[] = {1.5f, -2.0f};
  const int64_t number = -7;
  const uint16_t halves[] = {0x3fc0, 0xc000};
  std::memcpy(text.data() + text.size() - 20, floats, 8);
  std::memcpy(text.data() + text.size() - 12, &number, 8);
  std::memcpy(text.data() + text.size() - 4, halves, 4);
  const TemporaryFile file(text);
  auto opened = SafetensorsFile::Open(file.path());
  REQUIRE(opened.ok());
  CHECK(opened->Names() == std::vector<std::string>{"empty", "h", "n", "x"});
  CHECK(ToFloats(*opened->Get("x")) == std::vector<float>{1.5f, -2.0f});
  CHECK(ToFloats(*opened->Get("h")) == std::vector<float>{1.5f, -2.0f});
  CHECK(ToInt64s(*opened->Get("n")) == std::vector<int64_t>{-7});
  CHECK(opened->Get("n")->shape == std::vector<int64_t>{1, 1});
  CHECK(opened->Get("empty")->size_bytes == 0);
  CHECK(absl::IsNotFound(opened->Get("y").status()));
}

TEST_CASE("SafetensorsFile: a wrong header size is refused", "[models][weights][hostile]") {
  const auto code_of_size = [](uint64_t size) {
    std::string text(64, ' ');
    std::memcpy(text.data(), &size, sizeof(size));
    return OpenCode(text);
  };
  for (const uint64_t size :
       {uint64_t{0}, uint64_t{57}, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{7}}) {
    INFO(size);
    CHECK(code_of_size(size) == absl::StatusCode::kInvalidArgument);
  }
  CHECK(OpenCode("1234567") == absl::StatusCode::kInvalidArgument);
  CHECK(OpenCode("") == absl::StatusCode::kInvalidArgument);
  CHECK(absl::IsNotFound(SafetensorsFile::Open("/nonexistent/file").status()));
}

TEST_CASE("SafetensorsFile: a wrong header is refused", "[models][weights][hostile]") {
  const std::vector<std::string> headers = {
      "[]",
      "{",
      R"({"a":1})",
      R"({"a":{}})",
      R"({"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,7]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})",
      R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})",
      R"({"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
      std::string(100000, '['),
      "{\"a\":" + std::string(40, '[') + std::string(40, ']') + "}",
      "{\"a\xff\":{}}",
  };
  for (const std::string& header : headers) {
    INFO(header.substr(0, 100));
    CHECK(HeaderCode(header, 16) == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("SafetensorsFile: mutated headers are refused or stay inside the file",
          "[models][weights][fuzz]") {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                           R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}})";
  constexpr unsigned kSeed = 20261124;
  INFO("seed " << kSeed);
  std::mt19937 random(kSeed);
  const std::string data(24, 'd');
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string header = good;
    for (unsigned edits = random() % 3 + 1; edits > 0; --edits) {
      header[random() % header.size()] = static_cast<char>(32 + random() % 95);
    }
    const auto tensors = ParseSafetensorsHeader(header, absl::MakeConstSpan(data));
    if (!tensors.ok()) continue;
    ++accepted;
    for (const auto& [name, view] : *tensors) {
      const auto* begin = static_cast<const char*>(view.bytes);
      REQUIRE(begin >= data.data());
      REQUIRE(begin + view.size_bytes <= data.data() + data.size());
    }
  }
  CHECK(accepted > 0);
}

}  // namespace triptych::models
