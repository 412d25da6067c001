#include <algorithm>
#include <cstring>

#include "kernels/page_copy.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

// One half (K or V) of one layer: one memcpy a block.
void CopyHalf(const PageCopyArgs& args, internal::PageCopyDirection direction, char* pages,
              char* buffer) {
  const int64_t token_bytes = args.layout.token_elements() * SizeOf(args.layout.dtype);
  const int block_tokens = args.layout.block_tokens;
  const int64_t block_bytes = args.halves * block_tokens * token_bytes;
  const int64_t end = args.token_begin + args.tokens;
  for (int64_t token = args.token_begin; token < end;) {
    const int64_t row = token % block_tokens;
    const int64_t count = std::min<int64_t>(block_tokens - row, end - token);
    char* page = pages + args.block_ids[token / block_tokens] * block_bytes + row * token_bytes;
    if (direction == internal::PageCopyDirection::kGather) {
      std::memcpy(buffer, page, count * token_bytes);
    } else {
      std::memcpy(page, buffer, count * token_bytes);
    }
    buffer += count * token_bytes;
    token += count;
  }
}

}  // namespace

void internal::PageCopyCpu(const PageCopyArgs& args, PageCopyDirection direction,
                           ThreadPool* pool) {
  const int64_t half_block_bytes = args.layout.block_bytes() / 2;
  const int64_t half_layer_bytes = PageCopyBytes(args.layout, 1, args.tokens, 1);
  const int halves = args.halves;
  ParallelFor(pool, halves * static_cast<int64_t>(args.layer_pages.size()), [&](int64_t slice) {
    char* pages =
        static_cast<char*>(args.layer_pages[slice / halves]) + slice % halves * half_block_bytes;
    CopyHalf(args, direction, pages, static_cast<char*>(args.buffer) + slice * half_layer_bytes);
  });
}

}  // namespace triptych::kernels
