// The main of every test binary: Catch2's own, plus `--triptych-list` (tags TAB name, one test a
// line, for cmake/discover_tests.cmake) and exit code 77 where a test called SkipTest.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstring>

#include "tests/support/skip.h"

namespace triptych::testing {
namespace {
bool skipped = false;
}  // namespace

void SkipTest(const char* reason) {
  skipped = true;
  std::printf("skipped: %s\n", reason);
}
}  // namespace triptych::testing

namespace {
int ListTests() {
  for (const auto& test : Catch::getAllTestCasesSorted(Catch::Config())) {
    std::string tags;
    for (const auto& tag : test.tags) tags += (tags.empty() ? "" : ",") + tag;
    std::printf("%s\t%s\n", tags.c_str(), test.name.c_str());
  }
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--triptych-list") == 0) return ListTests();
  const int result = Catch::Session().run(argc, argv);
  if (result == 0 && triptych::testing::skipped) return 77;
  return result;
}
