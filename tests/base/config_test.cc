// Defended: a wrong flag stops the start with a line that names the flag, and a refused value is
// never applied.
#include "base/config.h"

#include <catch2/catch.hpp>

#include "base/random.h"

namespace triptych::base {
namespace {

struct Options {
  int64_t blocks;
  double fraction;
  bool verbose;
  Duration lease;
  std::string listen;
  std::string device;

  void Declare(FlagSet* flags) {
    flags->AddInt(
        &blocks,
        {.name = "kv-blocks", .doc = "Blocks.", .default_value = 64, .min = 1, .max = 1024});
    flags->AddDouble(&fraction,
                     {.name = "fraction", .doc = "Part.", .default_value = 0.5, .max = 1});
    flags->AddBool(&verbose, {.name = "verbose", .doc = "More lines."});
    flags->AddDuration(&lease, {.name = "lease",
                                .doc = "Time.",
                                .default_value = std::chrono::seconds(3),
                                .min = std::chrono::milliseconds(10),
                                .max = std::chrono::hours(1)});
    flags->AddString(&listen, {.name = "listen",
                               .doc = "Address.",
                               .default_value = "",
                               .presence = Presence::kRequired});
    flags->AddChoice(&device, {.name = "device", .doc = "Kind.", .choices = {"cpu", "modelled"}});
  }
};

class ConfigFixture {
 protected:
  ConfigFixture() { options.Declare(&flags); }
  absl::Status Parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "program");
    return flags.ParseFlags(static_cast<int>(arguments.size()), arguments.data());
  }
  absl::Status ParseAndValidate(std::vector<const char*> arguments) {
    arguments.push_back("--listen=x");
    const absl::Status status = Parse(arguments);
    return status.ok() ? flags.Validate() : status;
  }
  Options options;
  FlagSet flags{"program: a test"};
};

// Each refusal starts from fresh options, so that one wrong value cannot hide another.
void RefusesNaming(const char* argument, const std::string& name) {
  Options options;
  FlagSet flags("program: a test");
  options.Declare(&flags);
  const char* arguments[] = {"program", "--listen=x", argument};
  absl::Status status = flags.ParseFlags(3, arguments);
  if (status.ok()) status = flags.Validate();
  INFO(argument << " -> " << status);
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(status.message()).find(name) != std::string::npos);
}

TEST_CASE_METHOD(ConfigFixture, "Config: defaults stand in the declaration", "[base][config]") {
  CHECK(options.blocks == 64);
  CHECK(options.fraction == 0.5);
  CHECK_FALSE(options.verbose);
  CHECK(options.lease == std::chrono::seconds(3));
  CHECK(options.device == "cpu");
}

TEST_CASE_METHOD(ConfigFixture, "Config: both spellings of a value are read", "[base][config]") {
  REQUIRE(ParseAndValidate({"--kv-blocks=7", "--fraction", "0.25", "--verbose", "--lease=250ms",
                            "--device", "modelled"})
              .ok());
  CHECK(options.blocks == 7);
  CHECK(options.fraction == 0.25);
  CHECK(options.verbose);
  CHECK(options.lease == std::chrono::milliseconds(250));
  CHECK(options.device == "modelled");
  CHECK(options.listen == "x");
}

TEST_CASE("Config: a wrong value is refused with its flag's name", "[base][config]") {
  RefusesNaming("--kv-blocks=0", "--kv-blocks");
  RefusesNaming("--kv-blocks=1025", "1 to 1024");
  RefusesNaming("--kv-blocks=ten", "--kv-blocks");
  RefusesNaming("--kv-blocks=99999999999999999999", "--kv-blocks");
  RefusesNaming("--fraction=nan", "--fraction");
  RefusesNaming("--fraction=1.01", "--fraction");
  RefusesNaming("--lease=5", "--lease");
  RefusesNaming("--lease=-5s", "--lease");
  RefusesNaming("--lease=1ms", "--lease");
  RefusesNaming("--lease=1e9h", "--lease");
  RefusesNaming("--device=tpu", "cpu | modelled");
  RefusesNaming("--verbose=perhaps", "--verbose");
  RefusesNaming("--no-such=1", "--no-such");
  RefusesNaming("stray", "stray");
}

TEST_CASE_METHOD(ConfigFixture, "Config: a flag at the end without its value is refused",
                 "[base][config]") {
  const absl::Status status = Parse({"--kv-blocks"});
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(status.message()).find("--kv-blocks") != std::string::npos);
}

TEST_CASE_METHOD(ConfigFixture, "Config: a required flag must be given", "[base][config]") {
  REQUIRE(Parse({}).ok());
  CHECK(flags.Validate().message() == "--listen is required");
}

TEST_CASE_METHOD(ConfigFixture, "Config: the help shows each flag, default and range",
                 "[base][config]") {
  REQUIRE(Parse({"--help"}).ok());
  CHECK(flags.help_requested());
  const std::string help = flags.Help();
  for (const char* part : {"--kv-blocks (int, default 64; 1 to 1024)", "Blocks.",
                           "--lease (duration, default 3s; 10ms to 1h)", "cpu | modelled",
                           "--listen (text, default \"\"; required)"}) {
    INFO(part << " in\n" << help);
    CHECK(help.find(part) != std::string::npos);
  }
}

TEST_CASE("Config: positional arguments are kept where they are wanted", "[base][config]") {
  FlagSet flags("program: a test", Positional::kKeep);
  int64_t count = 0;
  flags.AddInt(&count, {.name = "count", .doc = "Count."});
  const char* arguments[] = {"program", "ask", "--count", "2", "--", "--what"};
  REQUIRE(flags.ParseFlags(6, arguments).ok());
  CHECK(flags.positional() == std::vector<std::string>{"ask", "--what"});
  CHECK(count == 2);
}

TEST_CASE("Config: durations survive being written and read", "[base][config]") {
  for (const char* text : {"0s", "1ms", "250ms", "3s", "90s", "2m", "1h"}) {
    REQUIRE(ParseDuration(text).ok());
    CHECK(*ParseDuration(FormatDuration(*ParseDuration(text))) == *ParseDuration(text));
  }
  CHECK(*ParseDuration("1.5s") == std::chrono::milliseconds(1500));
  for (const char* text : {"", "s", "5", "1.2.3s", "5 s", "5d"})
    CHECK_FALSE(ParseDuration(text).ok());
}

TEST_CASE("SeededRandom: a seed repeats its sequence, and bounds hold", "[base][random]") {
  SeededRandom a(1), b(1), c(2);
  for (int i = 0; i < 100; ++i) CHECK(a.Next() == b.Next());
  CHECK(a.Next() != c.Next());
  int seen[5] = {};
  for (int i = 0; i < 5000; ++i) ++seen[a.Below(5)];
  for (const int count : seen) CHECK(std::abs(count - 1000) < 150);
  for (int i = 0; i < 1000; ++i) {
    const int64_t value = a.Between(-3, 3);
    CHECK((value >= -3 && value <= 3));
    const double unit = a.Uniform();
    CHECK((unit >= 0 && unit < 1));
  }
}

TEST_CASE("RandomBits64: two incarnations differ", "[base][random]") {
  CHECK(RandomBits64() != RandomBits64());
}

TEST_CASE("Flags: the command line counts before variables, and those before a file",
          "[base][config]") {
  Options options;
  FlagSet flags("test");
  options.Declare(&flags);
  const char* argv[] = {"test", "--kv-blocks=5", "--config=/etc/triptych.conf"};
  REQUIRE(flags.ParseFlags(3, argv).ok());
  CHECK(flags.config_file() == "/etc/triptych.conf");
  REQUIRE(flags
              .ReadVariables([](const std::string& name) -> const char* {
                if (name == "TRIPTYCH_KV_BLOCKS") return "6";
                return name == "TRIPTYCH_LEASE" ? "2s" : nullptr;
              })
              .ok());
  REQUIRE(flags
              .ReadFile("# of the test\nkv-blocks = 7\n\nlease: 1s\n--fraction=0.25 # a part\n"
                        "listen: [::1]:80\n")
              .ok());
  CHECK(options.blocks == 5);
  CHECK(options.lease == std::chrono::seconds(2));
  CHECK(options.fraction == 0.25);
  CHECK(options.listen == "[::1]:80");
  CHECK(flags.Validate().ok());
}

TEST_CASE("Flags: a bad variable or line is named", "[base][config]") {
  Options options;
  FlagSet flags("test");
  options.Declare(&flags);
  const char* argv[] = {"test", "--config=a.conf"};
  REQUIRE(flags.ParseFlags(2, argv).ok());
  const absl::Status variable = flags.ReadVariables([](const std::string&) { return "no number"; });
  CHECK_THAT(std::string(variable.message()), Catch::Contains("--kv-blocks=no number"));
  for (const char* line : {"nothing", "no-such-flag = 1", "fraction = x"}) {
    INFO(line);
    const absl::Status status = flags.ReadFile(std::string("# first\n") + line);
    CHECK_THAT(std::string(status.message()), Catch::Contains("a.conf, line 2"));
  }
}

TEST_CASE("Flags: -h asks for help, --version for the version", "[base][config]") {
  Options options;
  FlagSet flags("test");
  options.Declare(&flags);
  const char* argv[] = {"test", "-h", "--version"};
  REQUIRE(flags.ParseFlags(3, argv).ok());
  CHECK(flags.help_requested());
  CHECK(flags.version_requested());
}

}  // namespace
}  // namespace triptych::base
