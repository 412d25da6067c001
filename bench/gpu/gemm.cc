#include "bench/gpu/gemm.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

namespace triptych::bench {
namespace {

constexpr int64_t kScratchBytes = int64_t{64} << 20;
constexpr int kCandidates = 12;
constexpr int64_t kCeilingSide = 8192;

void CheckLt(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s: cuBLASLt %d\n", what, static_cast<int>(status));
  std::exit(1);
}

cublasLtMatrixLayout_t Layout(int64_t rows, int64_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  CheckLt(cublasLtMatrixLayoutCreate(&layout, CUDA_R_16BF, rows, columns, rows), "layout");
  return layout;
}

}  // namespace

// Column-major: y^T [outputs, rows] = weight [outputs, inputs] x^T.
struct Gemms::Choice {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm;
};

Gemms::Gemms(BenchDevice* device) : device_(device) {
  cublasLtHandle_t handle = nullptr;
  CheckLt(cublasLtCreate(&handle), "handle");
  handle_ = handle;
  scratch_ = device->Allocate(kScratchBytes);
  constexpr int64_t kSide = kCeilingSide;
  ceiling_ = {.x = device->RandomBFloat16(kSide * kSide, 1),
              .rows = kSide,
              .inputs = kSide,
              .weight = device->RandomBFloat16(kSide * kSide, 1),
              .outputs = kSide,
              .y = device->Allocate(kSide * kSide * 2)};
}

int Gemms::Run(const Choice& choice, const GemmArgs& args) {
  const float one = 1, beta = args.residual == nullptr ? 0 : 1;
  const void* residual = args.residual == nullptr ? args.y : args.residual;
  return cublasLtMatmul(static_cast<cublasLtHandle_t>(handle_), choice.operation, &one, args.weight,
                        choice.weight, args.x, choice.x, &beta, residual, choice.y, args.y,
                        choice.y, &choice.algorithm, scratch_, kScratchBytes,
                        device_->cuda_stream());
}

Gemms::Choice* Gemms::Choose(const GemmArgs& args) {
  auto* choice = new Choice();
  CheckLt(cublasLtMatmulDescCreate(&choice->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
          "operation");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  CheckLt(cublasLtMatmulDescSetAttribute(choice->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                         &transposed, sizeof(transposed)),
          "transposed");
  if (args.bias != nullptr) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    CheckLt(cublasLtMatmulDescSetAttribute(choice->operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                           &epilogue, sizeof(epilogue)),
            "epilogue");
    CheckLt(cublasLtMatmulDescSetAttribute(choice->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                           &args.bias, sizeof(args.bias)),
            "bias");
  }
  choice->weight = Layout(args.inputs, args.outputs);
  choice->x = Layout(args.inputs, args.rows);
  choice->y = Layout(args.outputs, args.rows);
  cublasLtMatmulPreference_t preference = nullptr;
  CheckLt(cublasLtMatmulPreferenceCreate(&preference), "preference");
  CheckLt(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &kScratchBytes, sizeof(kScratchBytes)),
          "scratch");
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found = {};
  int count = 0;
  CheckLt(cublasLtMatmulAlgoGetHeuristic(static_cast<cublasLtHandle_t>(handle_), choice->operation,
                                         choice->weight, choice->x, choice->y, choice->y,
                                         preference, kCandidates, found.data(), &count),
          "heuristic");
  double best_ms = 1e30;
  cublasLtMatmulAlgo_t best = found[0].algo;
  GemmArgs trial = args;  // into memory of its own: y may be a running sum
  trial.y = device_->Allocate(args.rows * args.outputs * 2);
  for (int i = 0; i < count; ++i) {
    choice->algorithm = found[i].algo;
    if (Run(*choice, trial) != CUBLAS_STATUS_SUCCESS) continue;
    const double ms = device_->Time([&] {
      for (int repeat = 0; repeat < 2; ++repeat) Run(*choice, trial);
    });
    if (ms >= best_ms) continue;
    best_ms = ms;
    best = found[i].algo;
  }
  CheckCuda(cudaFree(trial.y), "free");
  choice->algorithm = best;
  return choice;
}

void Gemms::Multiply(const GemmArgs& args) {
  const Shape shape = {args.rows, args.inputs, args.outputs, args.bias != nullptr,
                       args.residual != nullptr};
  Choice*& choice = choices_[shape];
  if (choice == nullptr) choice = Choose(args);
  if (args.bias != nullptr) {
    CheckLt(cublasLtMatmulDescSetAttribute(choice->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                           &args.bias, sizeof(args.bias)),
            "bias");
  }
  CheckLt(static_cast<cublasStatus_t>(Run(*choice, args)), "product");
}

double Gemms::CeilingTflops(double milliseconds) {
  constexpr double kSide = kCeilingSide;
  constexpr double kProductMs = 1.6;
  const int products = std::max(1, static_cast<int>(milliseconds / kProductMs));
  Multiply(ceiling_);
  const double ms = device_->Time([&] {
    for (int i = 0; i < products; ++i) Multiply(ceiling_);
  });
  return 2 * kSide * kSide * kSide * products / ms * 1e-9;
}

}  // namespace triptych::bench
