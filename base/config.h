#pragma once

// Command-line flags. One declaration holds a flag's name, meaning, default and range:
//
//   struct WorkerOptions {
//     std::string device;
//     int64_t kv_blocks;
//     void Declare(base::FlagSet* flags) {
//       flags->AddChoice(&device, {.name = "device", .doc = "...", .choices = {"cpu",
//       "modelled"}}); flags->AddInt(&kv_blocks, {.name = "kv-blocks", .doc = "...", .default_value
//       = 4096,
//                                  .min = 16, .max = 1 << 20});
//     }
//   };
//
// main parses and validates once; nothing below main reads flags or the environment. One thread.

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"

namespace triptych::base {

struct IntFlag {
  std::string name;
  std::string doc;
  int64_t default_value = 0;
  int64_t min = 0;
  int64_t max = std::numeric_limits<int64_t>::max();
};

struct DoubleFlag {
  std::string name;
  std::string doc;
  double default_value = 0;
  double min = 0;
  double max = std::numeric_limits<double>::max();
};

// `--name` and `--name=true` set it, `--name=false` clears it.
struct BoolFlag {
  std::string name;
  std::string doc;
  bool default_value = false;
};

// Written with its unit: 250ms, 1.5s, 2m, 1h.
struct DurationFlag {
  std::string name;
  std::string doc;
  Duration default_value{0};
  Duration min{0};
  Duration max = std::chrono::hours(24 * 365);
};

enum class Presence { kOptional, kRequired };

// A required one must not be empty.
struct StringFlag {
  std::string name;
  std::string doc;
  std::string default_value;
  Presence presence = Presence::kOptional;
};

// One of `choices`; the first is the default.
struct ChoiceFlag {
  std::string name;
  std::string doc;
  std::vector<std::string> choices;
};

enum class Positional { kRefuse, kKeep };

class FlagSet {
 public:
  // `usage` is the first line of the help: "triptych-worker [flags]: what it does".
  explicit FlagSet(std::string usage, Positional positional = Positional::kRefuse);

  // Each sets `*value` to the default and borrows it for as long as this set lives. Names are
  // lower-case words joined by hyphens, each declared once (CHECKed).
  void AddInt(int64_t* value, const IntFlag& flag);
  void AddDouble(double* value, const DoubleFlag& flag);
  void AddBool(bool* value, const BoolFlag& flag);
  void AddDuration(Duration* value, const DurationFlag& flag);
  void AddString(std::string* value, const StringFlag& flag);
  void AddChoice(std::string* value, const ChoiceFlag& flag);

  // Reads argv[1..]: `--name=value`, `--name value`, `--help`, `-h`, `--version`, `--config=FILE`;
  // `--` ends the flags. The last of two values wins. INVALID_ARGUMENT names the flag: unknown,
  // without a value, not a number, or a positional argument that is not wanted. Ranges are
  // Validate's.
  absl::Status ParseFlags(int argc, const char* const* argv);

  // For flags that the command line left open: `value_of` is asked for TRIPTYCH_<NAME> of each, in
  // capitals with underscores, and returns null for what is not set. Errors as above.
  absl::Status ReadVariables(const std::function<const char*(const std::string&)>& value_of);
  // For flags that neither said: lines `name = value` or `name: value`; `#` begins a comment.
  // Errors as above, with the line.
  absl::Status ReadFile(absl::string_view text);

  // Checks every declared value, wherever it came from, against its range. INVALID_ARGUMENT names
  // the flag, the value and the range.
  absl::Status Validate() const;

  // Every flag with its meaning, default and range, in the order of declaration.
  std::string Help() const;

  bool help_requested() const { return help_requested_; }
  bool version_requested() const { return version_requested_; }
  // Of --config; empty: none.
  const std::string& config_file() const { return config_file_; }
  const std::vector<std::string>& positional() const { return positional_; }

 private:
  struct Flag {
    std::string name;
    std::string doc;
    std::string type;  // "int", "duration", ... for the help.
    std::string default_text;
    std::string range_text;  // Empty: any value.
    std::function<absl::Status(absl::string_view)> parse;
    std::function<absl::Status()> validate;
    int rank = 0;  // of the source that has set it
  };
  // Whose word counts: the later over the earlier.
  enum Rank { kDefault, kFile, kVariable, kCommandLine };

  void Add(Flag flag);
  absl::Status SetValue(Flag& flag, absl::string_view text, Rank rank);
  absl::Status ReadLine(absl::string_view line);

  const std::string usage_;
  const Positional keep_positional_;
  std::vector<Flag> flags_;
  absl::flat_hash_map<std::string, size_t> index_of_;
  std::vector<std::string> positional_;
  std::string config_file_;
  bool help_requested_ = false;
  bool version_requested_ = false;
};

// "250ms", "1.5s", "2m", "1h". INVALID_ARGUMENT without a unit or with an unknown one.
absl::StatusOr<Duration> ParseDuration(absl::string_view text);
// The shortest of those forms that is exact to a millisecond.
std::string FormatDuration(Duration duration);

// What a main does first: parses the command line, the variables and the file of --config, and
// prints the help, the version or an error. Returns the exit code to end with (0 after --help and
// --version, 2 after an error), or -1 to go on. The only reader of the environment.
int ParseCommandLine(int argc, const char* const* argv, FlagSet* flags);

}  // namespace triptych::base
