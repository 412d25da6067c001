#include <cuda_bf16.h>

#include <cmath>
#include <limits>

#include "bench/gpu/decode_reference.h"
#include "bench/gpu/timed_graph.h"

namespace triptych::bench {
namespace {

constexpr int kHeadDim = 128;
constexpr int kPage = 16;
constexpr int kRowsAtOnce = 8;

struct Buffer {
  explicit Buffer(int64_t count) : count(count) {
    CheckCuda(cudaMalloc(reinterpret_cast<void**>(&data), count * 8), "malloc");
  }
  ~Buffer() { (void)cudaFree(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::vector<double> Download() const {
    std::vector<double> host(count);
    CheckCuda(cudaMemcpy(host.data(), data, count * 8, cudaMemcpyDeviceToHost), "download");
    return host;
  }
  int64_t count;
  double* data = nullptr;
};

__device__ double Value(const void* p, int64_t i) {
  return static_cast<double>(__bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]));
}

__device__ double WarpSum(double v) {
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(~0u, v, offset);
  return v;
}

// One warp an output and eight rows; sums[row][output].
__global__ void ProductKernel(kernels::DecodeLinearArgs args, double* sums) {
  const int64_t output = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  const int64_t first = int64_t{blockIdx.y} * kRowsAtOnce;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (output >= args.outputs) return;
  double sum[kRowsAtOnce] = {}, squares[kRowsAtOnce] = {};
  for (int64_t k = lane; k < args.inputs; k += 32) {
    const double weight = Value(args.weights, output * args.inputs + k) *
                          (args.norm != nullptr ? Value(args.norm, k) : 1.0);
    for (int r = 0; r < kRowsAtOnce; ++r) {
      if (first + r >= args.rows) break;
      const double x = Value(args.x, (first + r) * args.x_stride + k);
      sum[r] += weight * x;
      squares[r] += x * x;
    }
  }
  for (int r = 0; r < kRowsAtOnce && first + r < args.rows; ++r) {
    double total = WarpSum(sum[r]);
    const double square = WarpSum(squares[r]);
    if (args.norm != nullptr) {
      total /= sqrt(square / static_cast<double>(args.inputs) + args.norm_eps);
    }
    if (args.bias != nullptr) total += Value(args.bias, output);
    if (args.residual != nullptr) {
      total += Value(args.residual, (first + r) * args.y_stride + output);
    }
    if (lane == 0) sums[(first + r) * args.outputs + output] = total;
  }
}

__global__ void SwiGluKernel(const double* sums, int64_t n, double* out) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const double gate = sums[blockIdx.y * 2 * n + i];
  out[blockIdx.y * n + i] = gate / (1 + exp(-gate)) * sums[blockIdx.y * 2 * n + n + i];
}

struct AttentionInputs {
  const void* qkv;
  const void* pool;
  int heads, kv_heads;
  const int32_t* lengths;
  const int32_t* page_begin;
  const int32_t* pages;
  int64_t most;  // tokens
  kernels::RopeTable rope;
};

// Element d of a head at `row`, rotated; positions as DecodeModel::SetRows gives them.
__device__ double Rotated(const AttentionInputs& in, int row, int head, int d) {
  const int64_t at = int64_t{row} * (in.heads + 2 * in.kv_heads) * kHeadDim + head * kHeadDim;
  const int i = d % (kHeadDim / 2);
  const int position = in.lengths[row] - 1 - 7 * in.rope.axis[i];
  const double angle = static_cast<double>(static_cast<float>(position) * in.rope.inv_freq[i]);
  const double low = Value(in.qkv, at + i), high = Value(in.qkv, at + i + kHeadDim / 2);
  return d < kHeadDim / 2 ? low * cos(angle) - high * sin(angle)
                          : high * cos(angle) + low * sin(angle);
}

__device__ int64_t PoolIndex(const AttentionInputs& in, int row, int token, int kv_head,
                             int value) {
  const int64_t block = in.pages[in.page_begin[row] + token / kPage];
  return ((block * 2 + value) * kPage + token % kPage) * in.kv_heads * kHeadDim +
         kv_head * kHeadDim;
}

__global__ void NewTokensKernel(AttentionInputs in, double* out) {
  const int row = static_cast<int>(blockIdx.x), kv_head = static_cast<int>(blockIdx.y);
  const int d = static_cast<int>(threadIdx.x);
  double* to = out + (row * in.kv_heads + kv_head) * 2 * kHeadDim + d;
  to[0] = Rotated(in, row, in.heads + kv_head, d);
  to[kHeadDim] = Value(
      in.qkv,
      (int64_t{row} * (in.heads + 2 * in.kv_heads) + in.heads + in.kv_heads + kv_head) * kHeadDim +
          d);
}

__global__ void StoredKernel(AttentionInputs in, double* out) {
  const int row = static_cast<int>(blockIdx.x), kv_head = static_cast<int>(blockIdx.y);
  for (int value = 0; value < 2; ++value) {
    out[((row * in.kv_heads + kv_head) * 2 + value) * kHeadDim + threadIdx.x] =
        Value(in.pool, PoolIndex(in, row, in.lengths[row] - 1, kv_head, value) + threadIdx.x);
  }
}

// One block of 128 threads a row and head.
__global__ void AttendKernel(AttentionInputs in, double* scores, double* out) {
  __shared__ double q[kHeadDim], total;
  const int row = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int kv_head = head / (in.heads / in.kv_heads);
  const int d = static_cast<int>(threadIdx.x), last = in.lengths[row] - 1;
  double* mine = scores + (int64_t{row} * in.heads + head) * in.most;
  q[d] = Rotated(in, row, head, d);
  __syncthreads();
  for (int token = d; token <= last; token += kHeadDim) {
    double score = 0;
    for (int i = 0; i < kHeadDim; ++i) {
      score += q[i] * (token == last ? Rotated(in, row, in.heads + kv_head, i)
                                     : Value(in.pool, PoolIndex(in, row, token, kv_head, 0) + i));
    }
    mine[token] = exp(score / sqrt(128.0));
  }
  __syncthreads();
  if (d == 0) {
    total = 0;
    for (int token = 0; token <= last; ++token) total += mine[token];
  }
  __syncthreads();
  double sum = 0;
  for (int token = 0; token <= last; ++token) {
    const double value = token == last
                             ? Value(in.qkv, (int64_t{row} * (in.heads + 2 * in.kv_heads) +
                                              in.heads + in.kv_heads + kv_head) *
                                                     kHeadDim +
                                                 d)
                             : Value(in.pool, PoolIndex(in, row, token, kv_head, 1) + d);
    sum += mine[token] * value;
  }
  out[(int64_t{row} * in.heads + head) * kHeadDim + d] = sum / total;
}

// Device copies of what the kernels read of the model, kept until the process ends.
AttentionInputs InputsOf(const DecodeModel& model, int layer) {
  const auto upload = [](const std::vector<int32_t>& from) {
    int32_t* to = nullptr;
    CheckCuda(cudaMalloc(reinterpret_cast<void**>(&to), from.size() * 4), "malloc");
    CheckCuda(cudaMemcpy(to, from.data(), from.size() * 4, cudaMemcpyHostToDevice), "upload");
    return to;
  };
  int32_t most = 0;
  for (const int32_t length : model.lengths()) most = std::max(most, length);
  return {model.qkv,
          model.pool(layer),
          model.shape().heads,
          model.shape().kv_heads,
          upload(model.lengths()),
          upload(model.host_page_begin()),
          upload(model.host_pages()),
          most,
          model.rope()};
}

__global__ void RandomKernel(uint32_t* to, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t v = static_cast<uint32_t>(i) * 2654435761u;
    v = (v ^ (v >> 15)) * 2246822519u;
    to[i] = v ^ (v >> 13);
  }
}

__global__ void __launch_bounds__(512) CopyKernel(uint4* to, const uint4* from, int64_t count) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 3 * step < count; i += 4 * step) {
    const uint4 a = from[i], b = from[i + step], c = from[i + 2 * step], d = from[i + 3 * step];
    to[i] = a;
    to[i + step] = b;
    to[i + 2 * step] = c;
    to[i + 3 * step] = d;
  }
  for (; i < count; i += step) to[i] = from[i];
}

}  // namespace

void FillRandom(void* to, int64_t bytes) {
  RandomKernel<<<2048, 256>>>(static_cast<uint32_t*>(to), bytes / 4);
  CheckCuda(cudaGetLastError(), "fill");
}

void CopyByKernel(void* to, const void* from, int64_t bytes) {
  CopyKernel<<<132 * 4, 512>>>(static_cast<uint4*>(to), static_cast<const uint4*>(from),
                               bytes / 16);
  CheckCuda(cudaGetLastError(), "copy");
}

std::vector<double> ReferenceLinear(const kernels::DecodeLinearArgs& args) {
  Buffer sums(args.rows * args.outputs);
  const dim3 grid(static_cast<unsigned>((args.outputs + 7) / 8),
                  static_cast<unsigned>((args.rows + kRowsAtOnce - 1) / kRowsAtOnce));
  ProductKernel<<<grid, 256>>>(args, sums.data);
  CheckCuda(cudaDeviceSynchronize(), "reference product");
  if (!args.swiglu) return sums.Download();
  const int64_t n = args.outputs / 2;
  Buffer out(args.rows * n);
  SwiGluKernel<<<dim3(static_cast<unsigned>((n + 255) / 256), static_cast<unsigned>(args.rows)),
                 256>>>(sums.data, n, out.data);
  CheckCuda(cudaDeviceSynchronize(), "reference activation");
  return out.Download();
}

std::vector<double> ReferenceAttention(const DecodeModel& model, int layer) {
  const AttentionInputs in = InputsOf(model, layer);
  Buffer scores(model.rows() * in.heads * in.most);
  Buffer out(int64_t{model.rows()} * in.heads * kHeadDim);
  AttendKernel<<<dim3(static_cast<unsigned>(model.rows()), static_cast<unsigned>(in.heads)),
                 kHeadDim>>>(in, scores.data, out.data);
  CheckCuda(cudaDeviceSynchronize(), "reference attention");
  return out.Download();
}

std::vector<double> ReferenceNewTokens(const DecodeModel& model) {
  const AttentionInputs in = InputsOf(model, 0);
  Buffer out(int64_t{model.rows()} * in.kv_heads * 2 * kHeadDim);
  NewTokensKernel<<<dim3(static_cast<unsigned>(model.rows()), static_cast<unsigned>(in.kv_heads)),
                    kHeadDim>>>(in, out.data);
  CheckCuda(cudaDeviceSynchronize(), "reference tokens");
  return out.Download();
}

std::vector<double> StoredNewTokens(const DecodeModel& model, int layer) {
  const AttentionInputs in = InputsOf(model, layer);
  Buffer out(int64_t{model.rows()} * in.kv_heads * 2 * kHeadDim);
  StoredKernel<<<dim3(static_cast<unsigned>(model.rows()), static_cast<unsigned>(in.kv_heads)),
                 kHeadDim>>>(in, out.data);
  CheckCuda(cudaDeviceSynchronize(), "stored tokens");
  return out.Download();
}

double RelativeError(const std::vector<double>& value, const std::vector<double>& right) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < right.size(); ++i) {
    if (!std::isfinite(value[i]) || !std::isfinite(right[i])) {
      return std::numeric_limits<double>::infinity();
    }
    difference += (value[i] - right[i]) * (value[i] - right[i]);
    norm += right[i] * right[i];
  }
  return std::sqrt(difference / norm);
}

std::vector<double> DownloadBf16(const void* from, int64_t count) {
  std::vector<uint16_t> bits(count);
  CheckCuda(cudaMemcpy(bits.data(), from, count * 2, cudaMemcpyDeviceToHost), "download");
  std::vector<double> values(count);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t wide = static_cast<uint32_t>(bits[i]) << 16;
    float value;
    __builtin_memcpy(&value, &wide, 4);
    values[i] = value;
  }
  return values;
}

std::vector<double> DownloadFloats(const float* from, int64_t count) {
  std::vector<float> values(count);
  CheckCuda(cudaMemcpy(values.data(), from, count * 4, cudaMemcpyDeviceToHost), "download");
  return {values.begin(), values.end()};
}

}  // namespace triptych::bench
