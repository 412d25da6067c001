#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <array>
#include <map>

#include "absl/strings/str_cat.h"
#include "kernels/matrix_library.h"

namespace triptych::kernels {
namespace {

// What a plan depends on.
using Key = std::array<int64_t, 8>;

Key KeyOf(const LibraryProduct& p, int64_t scratch_bytes) {
  return {p.rows,
          p.inputs,
          p.outputs,
          p.x_stride,
          p.y_stride,
          (p.bias != nullptr ? 1 : 0) + (p.float_output ? 2 : 0),
          p.residual != nullptr ? 1 : 0,
          scratch_bytes};
}

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weights = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm;
};

// Prefills come in any length; more shapes than this are forgotten together.
constexpr size_t kMaxPlans = 2048;

struct Functions {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmulDescCreate) describe;
  decltype(&cublasLtMatmulDescSetAttribute) set;
  decltype(&cublasLtMatmulDescDestroy) forget_description;
  decltype(&cublasLtMatrixLayoutCreate) lay_out;
  decltype(&cublasLtMatrixLayoutDestroy) forget_layout;
  decltype(&cublasLtMatmulPreferenceCreate) prefer;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference;
  decltype(&cublasLtMatmulPreferenceDestroy) forget_preference;
  decltype(&cublasLtMatmulAlgoGetHeuristic) find;
  decltype(&cublasLtMatmul) multiply;
};

template <typename T>
bool Load(void* library, const char* name, T* function) {
  *function = reinterpret_cast<T>(dlsym(library, name));
  return *function != nullptr;
}

bool LoadAll(void* library, Functions* f) {
  return Load(library, "cublasLtCreate", &f->create) &&
         Load(library, "cublasLtDestroy", &f->destroy) &&
         Load(library, "cublasLtMatmulDescCreate", &f->describe) &&
         Load(library, "cublasLtMatmulDescSetAttribute", &f->set) &&
         Load(library, "cublasLtMatmulDescDestroy", &f->forget_description) &&
         Load(library, "cublasLtMatrixLayoutCreate", &f->lay_out) &&
         Load(library, "cublasLtMatrixLayoutDestroy", &f->forget_layout) &&
         Load(library, "cublasLtMatmulPreferenceCreate", &f->prefer) &&
         Load(library, "cublasLtMatmulPreferenceSetAttribute", &f->set_preference) &&
         Load(library, "cublasLtMatmulPreferenceDestroy", &f->forget_preference) &&
         Load(library, "cublasLtMatmulAlgoGetHeuristic", &f->find) &&
         Load(library, "cublasLtMatmul", &f->multiply);
}

}  // namespace

struct MatrixLibrary::State {
  void* library = nullptr;
  Functions functions;
  cublasLtHandle_t handle = nullptr;
  std::map<Key, Plan> plans;

  ~State() {
    Clear();
    if (handle != nullptr) functions.destroy(handle);
    if (library != nullptr) dlclose(library);
  }

  void Forget(const Plan& plan) {
    if (plan.operation != nullptr) functions.forget_description(plan.operation);
    for (cublasLtMatrixLayout_t layout : {plan.weights, plan.x, plan.y}) {
      if (layout != nullptr) functions.forget_layout(layout);
    }
  }

  void Clear() {
    for (const auto& [key, plan] : plans) Forget(plan);
    plans.clear();
  }

  // Columns of the library are our rows, so the product is y^T = W x^T.
  bool Describe(const LibraryProduct& p, Plan* plan) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cudaDataType y_type = p.float_output ? CUDA_R_32F : CUDA_R_16BF;
    const auto lay_out = [&](cublasLtMatrixLayout_t* layout, cudaDataType type, int64_t rows,
                             int64_t columns, int64_t stride) {
      return functions.lay_out(layout, type, rows, columns, stride) == CUBLAS_STATUS_SUCCESS;
    };
    const auto set = [&](cublasLtMatmulDescAttributes_t what, const void* value, size_t bytes) {
      return functions.set(plan->operation, what, value, bytes) == CUBLAS_STATUS_SUCCESS;
    };
    if (functions.describe(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F) !=
            CUBLAS_STATUS_SUCCESS ||
        !set(CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)) ||
        !lay_out(&plan->weights, CUDA_R_16BF, p.inputs, p.outputs, p.inputs) ||
        !lay_out(&plan->x, CUDA_R_16BF, p.inputs, p.rows, p.x_stride) ||
        !lay_out(&plan->y, y_type, p.outputs, p.rows, p.y_stride)) {
      return false;
    }
    if (p.bias == nullptr) return true;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType bias_type = CUDA_R_16BF;
    return set(CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)) &&
           set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, sizeof(bias_type)) &&
           set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof(p.bias));
  }

  bool Choose(int64_t scratch_bytes, Plan* plan) {
    cublasLtMatmulPreference_t preference = nullptr;
    if (functions.prefer(&preference) != CUBLAS_STATUS_SUCCESS) return false;
    const auto bytes = static_cast<uint64_t>(scratch_bytes);
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    const bool chosen =
        functions.set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                 sizeof(bytes)) == CUBLAS_STATUS_SUCCESS &&
        functions.find(handle, plan->operation, plan->weights, plan->x, plan->y, plan->y,
                       preference, 1, &found, &count) == CUBLAS_STATUS_SUCCESS &&
        count == 1;
    functions.forget_preference(preference);
    if (chosen) plan->algorithm = found.algo;
    return chosen;
  }

  // Null: the library has nothing for it.
  Plan* PlanOf(const LibraryProduct& product, int64_t scratch_bytes) {
    const Key key = KeyOf(product, scratch_bytes);
    if (const auto known = plans.find(key); known != plans.end()) return &known->second;
    if (plans.size() >= kMaxPlans) Clear();
    Plan plan;
    if (!Describe(product, &plan) || !Choose(scratch_bytes, &plan)) {
      Forget(plan);
      return nullptr;
    }
    return &plans.emplace(key, plan).first->second;
  }
};

MatrixLibrary::MatrixLibrary(std::unique_ptr<State> state) : state_(std::move(state)) {}
MatrixLibrary::~MatrixLibrary() = default;

absl::StatusOr<std::unique_ptr<MatrixLibrary>> MatrixLibrary::Open() {
  auto state = std::make_unique<State>();
  const std::string name = absl::StrCat("libcublasLt.so.", CUDART_VERSION / 1000);
  state->library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (state->library == nullptr) {
    const char* why = dlerror();
    return absl::UnavailableError(absl::StrCat(name, ": ", why == nullptr ? "?" : why));
  }
  if (!LoadAll(state->library, &state->functions)) {
    return absl::UnavailableError(absl::StrCat(name, " lacks a function"));
  }
  if (state->functions.create(&state->handle) != CUBLAS_STATUS_SUCCESS) {
    return absl::UnavailableError(absl::StrCat(name, " does not start on this device"));
  }
  return std::unique_ptr<MatrixLibrary>(new MatrixLibrary(std::move(state)));
}

int MatrixLibrary::Multiply(const LibraryProduct& p, void* scratch, int64_t scratch_bytes,
                            void* stream) {
  Plan* plan = state_->PlanOf(p, scratch_bytes);
  if (plan == nullptr) return cudaErrorNotSupported;
  const Functions& functions = state_->functions;
  if (p.bias != nullptr && functions.set(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                         &p.bias, sizeof(p.bias)) != CUBLAS_STATUS_SUCCESS) {
    return cudaErrorInvalidValue;
  }
  const float one = 1, added = p.residual != nullptr ? 1 : 0;
  const void* c = p.residual != nullptr ? p.residual : p.y;
  const cublasStatus_t status =
      functions.multiply(state_->handle, plan->operation, &one, p.weights, plan->weights, p.x,
                         plan->x, &added, c, plan->y, p.y, plan->y, &plan->algorithm, scratch,
                         static_cast<size_t>(scratch_bytes), static_cast<cudaStream_t>(stream));
  if (status == CUBLAS_STATUS_SUCCESS) return cudaSuccess;
  const cudaError_t error = cudaPeekAtLastError();
  return error != cudaSuccess ? error : cudaErrorLaunchFailure;
}

}  // namespace triptych::kernels
