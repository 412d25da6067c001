#pragma once

// Files that live as long as a test.

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace triptych::testing {

// A new empty directory, removed with everything in it at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "triptych_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << text;
  }

 private:
  std::string path_;
};

// One file with the given bytes.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text) { directory_.Write("file", text); }
  std::string path() const { return directory_.path() + "/file"; }

 private:
  TemporaryDirectory directory_;
};

}  // namespace triptych::testing
