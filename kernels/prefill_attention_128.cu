#include "kernels/prefill_attention.cuh"

namespace triptych::kernels {

int internal::PrefillAttention128(const PrefillAttentionArgs& args, void* cuda_stream) {
  return prefill::Run<128>(args, static_cast<cudaStream_t>(cuda_stream));
}

}  // namespace triptych::kernels
