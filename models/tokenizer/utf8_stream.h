#pragma once

// Turns a stream of bytes into a stream of valid UTF-8.

#include <string>

#include "absl/strings/string_view.h"

namespace triptych::models {

// Holds back at most three bytes: the beginning of a character whose end has not come. Each maximal
// part that cannot be or become a character is replaced by U+FFFD (the Unicode Standard's practice,
// chapter 3.9), as soon as that is certain. One thread.
class Utf8Stream {
 public:
  // What is complete after `bytes`; never ends inside a character.
  std::string Push(absl::string_view bytes);
  // The end of the stream: U+FFFD if a character was cut, else nothing.
  std::string Finish();

 private:
  std::string pending_;                     // the bytes so far of an unfinished character
  int missing_ = 0;                         // continuation bytes still to come
  unsigned char low_ = 0x80, high_ = 0xbf;  // what the next continuation byte may be
};

}  // namespace triptych::models
