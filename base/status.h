#pragma once

// Macros for absl::Status. absl::string_view is not std::string_view in Debian's Abseil, so the
// project's interfaces take absl::string_view (a std::string or a literal converts to it).

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define TRIPTYCH_CONCAT_INNER(a, b) a##b
#define TRIPTYCH_CONCAT(a, b) TRIPTYCH_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expression` is a status that is not OK.
#define RETURN_IF_ERROR(expression)                                           \
  do {                                                                        \
    if (absl::Status triptych_status = (expression); !triptych_status.ok()) { \
      return triptych_status;                                                 \
    }                                                                         \
  } while (false)

// Evaluates a StatusOr; returns its error, or moves its value to `declaration`.
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_IMPL(TRIPTYCH_CONCAT(triptych_status_or_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_IMPL(temporary, declaration, expression) \
  auto temporary = (expression);                                  \
  if (!temporary.ok()) return std::move(temporary).status();      \
  declaration = *std::move(temporary)
