// Fits choices to shapes and launches the kernel of linear_decode.cuh.

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kernels/linear_decode.cuh"
#include "kernels/linear_decode.h"
#include "kernels/tensor_map.h"

namespace triptych::kernels {
namespace {

int DivideUp(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

Launched Prepare(const DecodeLinearArgs& args, const DecodeLinearChoice& choice) {
  const DecodeTile tile = kDecodeTiles[choice.tile];
  const int outputs = static_cast<int>(args.swiglu ? args.outputs / 2 : args.outputs);
  return {.bias = static_cast<const __nv_bfloat16*>(args.bias),
          .residual = static_cast<const __nv_bfloat16*>(args.residual),
          .norm = static_cast<const __nv_bfloat16*>(args.norm),
          .y = args.y,
          .y_stride = args.y_stride,
          .rows = static_cast<int>(args.rows),
          .inputs = static_cast<int>(args.inputs),
          .outputs = outputs,
          .float_output = args.float_output ? 1 : 0,
          .x_rows = DivideUp(args.rows, 8) * 8,
          .tiles = DivideUp(outputs, args.swiglu ? tile.chunk : tile.rows()),
          .steps = DivideUp(args.inputs, int64_t{kBoxInputs} * tile.boxes),
          .split = choice.split,
          .stages = choice.stages,
          .trigger = choice.trigger,
          .second_half = args.swiglu ? outputs : 0,
          .eps = args.norm_eps};
}

// Blocks: a whole number of rounds for all but the last.
int GridOf(const Launched& in, int sm_count) {
  if (in.split > 1) return in.tiles * in.split;
  const int slots = in.tiles <= 2 * sm_count && in.tiles > sm_count && in.tiles < sm_count * 5 / 4
                        ? 2 * sm_count
                        : sm_count;
  return DivideUp(in.tiles, DivideUp(in.tiles, slots));
}

struct Maps {
  CUtensorMap weights;
  CUtensorMap x;
};

template <int kIndex>
cudaError_t LaunchTile(const Launched& in, const Maps& maps, int sm_count, bool pdl,
                       cudaStream_t stream) {
  constexpr DecodeTile kTile = kDecodeTiles[kIndex];
  const auto kernel = DecodeLinearKernel<kTile.chunk, kTile.chunks, kTile.boxes>;
  const int bytes = LayoutOf(in, kTile.rows(), kTile.boxes).total + 1024;
  cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2] = {};
  int count = 0;
  if (pdl) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (in.split > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(in.split), 1, 1};
  }
  const cudaLaunchConfig_t config = {.gridDim = dim3(static_cast<unsigned>(GridOf(in, sm_count))),
                                     .blockDim = dim3(kThreads),
                                     .dynamicSmemBytes = static_cast<size_t>(bytes),
                                     .stream = stream,
                                     .attrs = attributes,
                                     .numAttrs = static_cast<unsigned>(count)};
  return cudaLaunchKernelEx(&config, kernel, maps.weights, maps.x, in);
}

template <size_t... kIndices>
cudaError_t Launch(std::index_sequence<kIndices...>, int index, const Launched& in,
                   const Maps& maps, int sm_count, bool pdl, cudaStream_t stream) {
  cudaError_t error = cudaErrorInvalidValue;
  ((static_cast<int>(kIndices) == index
        ? (void)(error = LaunchTile<kIndices>(in, maps, sm_count, pdl, stream))
        : (void)0),
   ...);
  return error;
}

bool MakeWeightsMap(const DecodeLinearArgs& args, const DecodeLinearChoice& choice,
                    CUtensorMap* map) {
  return MakeTensorMap(args.weights, {args.outputs, args.inputs, args.inputs},
                       {kDecodeTiles[choice.tile].chunk, kBoxInputs}, map);
}

}  // namespace

int64_t internal::DecodeLinearSharedBytes(const DecodeLinearArgs& args,
                                          const DecodeLinearChoice& choice) {
  const DecodeTile tile = kDecodeTiles[choice.tile];
  return LayoutOf(Prepare(args, choice), tile.rows(), tile.boxes).total + 1024;
}

bool internal::DecodeLinearFits(const DecodeLinearArgs& args, const DecodeLinearChoice& choice,
                                int sm_count) {
  const DecodeTile tile = kDecodeTiles[choice.tile];
  const Launched in = Prepare(args, choice);
  if (args.rows < 1 || args.rows > kMaxRows || args.inputs % 8 != 0) return false;
  if (choice.stages < 2 || choice.stages > kMaxStages) return false;
  if (DecodeLinearSharedBytes(args, choice) > 227 * 1024) return false;
  if (args.swiglu && (tile.chunks != 2 || choice.split != 1)) return false;
  if (args.swiglu && (args.bias != nullptr || args.residual != nullptr)) return false;
  if (args.outputs % 2 != 0) return false;
  if (choice.split == 1) return true;
  return tile.rows() % (4 * choice.split) == 0 && in.steps >= choice.split &&
         in.tiles * choice.split <= 2 * sm_count && in.outputs % 4 == 0 &&
         args.rows * tile.rows() / 4 / choice.split <= kMaxItems * kConsumers &&
         int64_t{choice.stages} * LayoutOf(in, tile.rows(), tile.boxes).stage_bytes >=
             args.rows * (tile.rows() + 8) * 4;
}

bool internal::DecodeLinearRule(const DecodeLinearArgs& args, int sm_count,
                                DecodeLinearChoice* choice) {
  double best = 0;
  for (int tile = 0; tile < kNumDecodeTiles; ++tile) {
    for (const int split : {1, 2, 4, 8}) {
      DecodeLinearChoice tried = {.tile = tile, .split = split, .stages = kMaxStages, .trigger = 6};
      while (tried.stages > 2 && DecodeLinearSharedBytes(args, tried) > 227 * 1024) --tried.stages;
      if (!DecodeLinearFits(args, tried, sm_count)) continue;
      const int blocks = Prepare(args, tried).tiles * split;
      if (split > 1 && blocks > sm_count) continue;
      // The share of the multiprocessors that work in all rounds; less for what sharing costs, and
      // for narrow tiles, which read the input more often.
      const double rounds = static_cast<double>(DivideUp(blocks, sm_count)) * sm_count;
      const double score = blocks / rounds - 0.02 * split - 1.0 / kDecodeTiles[tile].rows();
      if (score <= best) continue;
      best = score;
      *choice = tried;
    }
  }
  if (best > 0) return true;
  *choice = {.tile = args.swiglu ? 3 : 0, .split = 1, .stages = 3, .trigger = 0};
  return DecodeLinearFits(args, *choice, sm_count);
}

int internal::DecodeLinearCuda(const DecodeLinearArgs& args, const DecodeLinearChoice& choice,
                               int sm_count, bool pdl, void* stream) {
  const Launched in = Prepare(args, choice);
  Maps maps = {};
  if (!MakeWeightsMap(args, choice, &maps.weights) ||
      !MakeTensorMap(args.x, {args.rows, args.inputs, args.x_stride}, {in.x_rows, kBoxInputs},
                     &maps.x)) {
    return cudaErrorInvalidValue;
  }
  return Launch(std::make_index_sequence<kNumDecodeTiles>(), choice.tile, in, maps, sm_count, pdl,
                static_cast<cudaStream_t>(stream));
}

}  // namespace triptych::kernels
