#pragma once

// Addresses that orchestrators put together from parts.

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace triptych::services {

// `host:port` with brackets around a bare IPv6 address, as in $(POD_IP):7100 of an IPv6 cluster.
inline std::string Dialable(const std::string& address) {
  const size_t colon = address.rfind(':');
  const bool bare = std::count(address.begin(), address.end(), ':') > 1 && address.front() != '[';
  if (!bare) return address;
  return absl::StrCat("[", address.substr(0, colon), "]", address.substr(colon));
}

}  // namespace triptych::services
