#pragma once

// What this process takes of its machine, for Prometheus, under the names that every client library
// uses. Not a part of Registry: the values are read when they are asked for.

#include <string>

namespace triptych::base {

// The text format's lines of process_cpu_seconds_total, process_resident_memory_bytes,
// process_virtual_memory_bytes, process_open_fds, process_max_fds, process_threads and
// process_start_time_seconds, from /proc; those that cannot be read are left out. Any thread.
std::string ProcessStatsText();

}  // namespace triptych::base
