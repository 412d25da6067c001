#pragma once

namespace triptych::media {

// From now on, for good: the calling thread may only move bytes over descriptors that it has,
// manage its own memory without making any of it executable, read clocks and end. Every other
// system call kills it (SIGSYS). So code that a picture has taken over opens no file, no socket and
// starts no process. Needs no-new-privileges. False when the kernel refuses or the machine is of
// another kind than x86-64 or 64-bit ARM.
bool FilterSystemCalls();

}  // namespace triptych::media
