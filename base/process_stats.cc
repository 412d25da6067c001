#include "base/process_stats.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace triptych::base {
namespace {

std::string FileText(const char* path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

void Append(const char* name, const char* kind, double value, std::string* out) {
  // Enough digits for a second in 1970's count.
  absl::StrAppend(out, "# TYPE ", name, " ", kind, "\n", name, " ");
  const auto whole = static_cast<int64_t>(value);
  if (static_cast<double>(whole) == value) {
    absl::StrAppend(out, whole, "\n");
  } else {
    absl::StrAppend(out, value, "\n");
  }
}

// Seconds since 1970 at which the machine started; 0 when unknown.
double BootTime() {
  for (absl::string_view line : absl::StrSplit(FileText("/proc/stat"), '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    double seconds = 0;
    if (words.size() == 2 && words[0] == "btime" && absl::SimpleAtod(words[1], &seconds)) {
      return seconds;
    }
  }
  return 0;
}

int64_t OpenDescriptors() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  int64_t count = -3;  // ".", ".." and the folder's own
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

// Fields of proc(5)'s /proc/[pid]/stat, counted from the one behind the name, which is the third.
enum StatField { kUserTicks = 11, kSystemTicks = 12, kThreads = 17, kStartTicks = 19 };
constexpr size_t kStatFields = 22;

void AppendStat(std::string* out) {
  const std::string text = FileText("/proc/self/stat");
  // The name may hold anything but ends with the last bracket.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(text).substr(name_end + 2), ' ');
  if (fields.size() < kStatFields) return;
  const auto number = [&](size_t field) {
    double value = 0;
    return absl::SimpleAtod(fields[field], &value) ? value : 0;
  };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  Append("process_cpu_seconds_total", "counter",
         (number(kUserTicks) + number(kSystemTicks)) / ticks, out);
  Append("process_threads", "gauge", number(kThreads), out);
  if (const double boot = BootTime(); boot > 0) {
    Append("process_start_time_seconds", "gauge", boot + number(kStartTicks) / ticks, out);
  }
}

}  // namespace

std::string ProcessStatsText() {
  std::string out;
  AppendStat(&out);
  const std::string statm = FileText("/proc/self/statm");
  const std::vector<absl::string_view> pages = absl::StrSplit(statm, ' ');
  double total = 0, resident = 0;
  if (pages.size() > 1 && absl::SimpleAtod(pages[0], &total) &&
      absl::SimpleAtod(pages[1], &resident)) {
    const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
    Append("process_virtual_memory_bytes", "gauge", total * page, &out);
    Append("process_resident_memory_bytes", "gauge", resident * page, &out);
  }
  Append("process_open_fds", "gauge", static_cast<double>(OpenDescriptors()), &out);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    Append("process_max_fds", "gauge", static_cast<double>(limit.rlim_cur), &out);
  }
  return out;
}

}  // namespace triptych::base
