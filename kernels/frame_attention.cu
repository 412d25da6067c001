// FlashInfer's persistent kernel (warp-specialised, K and V by the bulk copy engine) with two parts
// of ours: a scheduler that counts tiles in the order of memory instead of reading a plan, and an
// epilogue that writes only the columns a head has. The copy engine fills the columns beyond them
// with zeros, so they change no score.

#include <cuda_bf16.h>

#include <cmath>
#include <flashinfer/attention/hopper/prefill_sm90.cuh>
#include <flashinfer/attention/hopper/variants.cuh>

#include "kernels/cuda_context.h"
#include "kernels/frame_attention.h"

namespace triptych::kernels::frame {

using Element = cutlass::bfloat16_t;

constexpr int kWidth = internal::kMaxFrameHeadDim;
constexpr int kQueries = 128, kKeys = 192;  // of a tile
constexpr int kStages = 2;

using Traits = flashinfer::AttentionKernelTraits</*USE_TMA_LOAD_KV=*/true, kWidth, kWidth, kQueries,
                                                 kKeys, kStages, Element, Element, Element, int32_t,
                                                 flashinfer::StandardAttention>;

// The names of members are the library's, here and below.
struct Scaling {
  float sm_scale;
};

using Mainloop = flashinfer::CollectiveMainloop<Scaling, Traits, /*CAUSAL=*/false>;

// Tile `i` of a frame-major, then head-major count of tiles; a block takes every gridDim-th. Frames
// that are shorter than the longest have tiles without queries, which the kernel skips.
struct Scheduler {
  struct Params {
    const int32_t* offsets;
    int tiles, heads, total;  // of a frame; of a frame; of all frames and heads
  };
  struct WorkTileInfo {
    int index, tile, head, begin, length, frame;

    CUTLASS_DEVICE bool is_valid(const Params& params) const { return index < params.total; }
    CUTLASS_DEVICE auto get_block_coord(const Params&) const {
      return cute::make_tuple(tile, head, head, begin, begin, length, length, frame);
    }
  };

  CUTLASS_DEVICE static WorkTileInfo At(const Params& params, int index) {
    if (index >= params.total) return {index, 0, 0, 0, 0, 0};
    const int head_index = index / params.tiles, frame = head_index / params.heads;
    const int begin = params.offsets[frame];
    return {index, index - head_index * params.tiles, head_index - frame * params.heads,
            begin, params.offsets[frame + 1] - begin, frame};
  }
  CUTLASS_DEVICE WorkTileInfo get_initial_work(const Params& params) const {
    return At(params, static_cast<int>(blockIdx.x));
  }
  template <bool is_producer = false>
  CUTLASS_DEVICE WorkTileInfo get_next_work(const Params& params, const WorkTileInfo& now) const {
    return At(params, now.index + static_cast<int>(gridDim.x));
  }
  CUTLASS_DEVICE void init_consumer() const {}
  CUTLASS_DEVICE void prefetch_next_work(const Params&, WorkTileInfo&) const {}
  CUTLASS_DEVICE void broadcast_next_work(WorkTileInfo&) const {}
};

// Registers straight to memory: two neighbouring columns a store.
struct Epilogue {
  struct Params {
    Element* out;
    int64_t token_stride;
    int head_dim;
  };

  CUTLASS_DEVICE static void prefetch_tma_descriptors(const Params&) {}

  template <typename BlockCoord, typename SharedStorage, typename Out, typename Lse, typename Mma>
  CUTLASS_DEVICE void store(const Params& params, const Out& out, const Lse&, SharedStorage&,
                            Mma tiled_mma, int thread, const BlockCoord& coord) const {
    const int tile = cute::get<0>(coord), head = cute::get<1>(coord), begin = cute::get<3>(coord);
    const int rows = cute::get<5>(coord) - tile * kQueries;
    Element* to = params.out + int64_t{begin + tile * kQueries} * params.token_stride +
                  int64_t{head} * params.head_dim;
    const auto places = tiled_mma.get_thread_slice(thread).partition_C(
        cute::make_identity_tensor(cute::make_shape(cute::Int<kQueries>{}, cute::Int<kWidth>{})));
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < cute::size(out); i += 2) {
      const int row = cute::get<0>(places(i)), column = cute::get<1>(places(i));
      if (row >= rows || column >= params.head_dim) continue;
      *reinterpret_cast<__nv_bfloat162*>(to + row * params.token_stride + column) =
          __floats2bfloat162_rn(out(i), out(i + 1));
    }
  }
  CUTLASS_DEVICE void store_tail() const {}
  // A frame without keys has no queries either.
  template <typename SharedStorage, typename BlockCoord>
  CUTLASS_DEVICE void store_zero(const Params&, SharedStorage&, int, const BlockCoord&) const {}
};

Mainloop::LayoutT LayoutOf(const SegmentAttentionArgs& args) {
  const int64_t head_dim = args.head_dim, token = 3 * int64_t{args.heads} * head_dim;
  return cute::make_layout(cute::make_shape(args.offsets.back(), args.head_dim, args.heads),
                           cute::make_stride(token, cute::_1{}, head_dim));
}

}  // namespace triptych::kernels::frame

namespace triptych::kernels {

int internal::FrameAttentionCuda(const SegmentAttentionArgs& args, const Stream& on) {
  using frame::Element;
  const int64_t width = int64_t{args.heads} * args.head_dim;
  const auto* qkv = static_cast<const Element*>(args.qkv);
  const auto layout = frame::LayoutOf(args);
  const float scale = 1.0f / std::sqrt(static_cast<float>(args.head_dim));
  const frame::Mainloop::Params mainloop = frame::Mainloop::to_underlying_arguments(
      {qkv, layout, qkv + width, layout, qkv + 2 * width, layout, /*window_left=*/-1, {scale}});
  const frame::Epilogue::Params epilogue = {static_cast<Element*>(args.out), width, args.head_dim};
  const auto frames = static_cast<int64_t>(args.offsets.size()) - 1;
  const int tiles = (LongestSegment(args.offsets) + frame::kQueries - 1) / frame::kQueries;
  const int64_t total = frames * tiles * args.heads;
  if (total > INT32_MAX / 2) return cudaErrorInvalidValue;
  const frame::Scheduler::Params schedule = {args.device_offsets, tiles, args.heads,
                                             static_cast<int>(total)};
  auto kernel =
      flashinfer::PrefillWithKVCacheKernel<frame::Mainloop, frame::Epilogue, frame::Traits,
                                           /*LEFT_SLIDING_WINDOW=*/false,
                                           /*CAUSAL=*/false, frame::Scheduler>;
  constexpr int kBytes = sizeof(frame::Traits::SharedStorage);
  cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  int device = 0, multiprocessors = 0;
  if ((error = cudaGetDevice(&device)) != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(total, multiprocessors));
  kernel<<<blocks, frame::Traits::NUM_THREADS, kBytes,
           static_cast<cudaStream_t>(CudaStreamOf(on))>>>(mainloop, epilogue, schedule);
  return cudaPeekAtLastError();
}

}  // namespace triptych::kernels
