#pragma once

// Where the small model and its reference results lie: in the tree, or beside it.

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>

namespace triptych::testing {

// The first of `places` that exists, or an empty string.
inline std::string FirstExisting(std::initializer_list<const char*> places) {
  for (const char* place : places) {
    if (std::filesystem::exists(place)) return place;
  }
  return "";
}

inline std::string SmallModelDir() {
  return FirstExisting({"assets/triptych-16m", "../shared/models/triptych-16m"});
}

inline std::string StageGoldenDir() {
  return FirstExisting({"tests/golden/stages", "../shared/golden/stages"});
}

// Pictures of the stage cases, by file name.
inline std::string StagePicturesDir() {
  return FirstExisting({"tests/golden/pictures", "../shared/dev"});
}

// Empty where there is no such file.
inline std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace triptych::testing
