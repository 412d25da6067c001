#pragma once

// Requests that must be refused with INVALID_ARGUMENT or NOT_FOUND, by row of what is defended. The
// same pictures serve both front ends.

#include <string>
#include <vector>

namespace triptych::services::testing {

// A picture's file and the code of its refusal.
struct HostilePicture {
  std::string what;
  std::string bytes;
  std::string code;
};
std::vector<HostilePicture> HostilePictures();

// A small good PNG.
std::string GoodPicture();

}  // namespace triptych::services::testing
