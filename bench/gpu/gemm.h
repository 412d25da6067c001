#pragma once

// cuBLASLt's bf16 product with the choice of an algorithm timed at the first call of each shape.

#include <cstdint>
#include <map>
#include <tuple>

#include "bench/gpu/bench_device.h"

namespace triptych::bench {

struct GemmArgs {
  const void* x = nullptr;  // [rows, inputs]
  int64_t rows = 0;
  int64_t inputs = 0;
  const void* weight = nullptr;  // [outputs, inputs]
  int64_t outputs = 0;
  const void* bias = nullptr;      // null, or [outputs]
  const void* residual = nullptr;  // null, or [rows, outputs]; may be y
  void* y = nullptr;               // [rows, outputs]
};

class Gemms {
 public:
  explicit Gemms(BenchDevice* device);

  void Multiply(const GemmArgs& args);
  // The ceiling that others are told against: 8192 x 8192 x 8192 products for about as long as they
  // took, because a GPU that has drawn its full power for a while is slower than one that has not.
  double CeilingTflops(double milliseconds);

 private:
  // rows, inputs, outputs, bias, residual
  using Shape = std::tuple<int64_t, int64_t, int64_t, bool, bool>;
  struct Choice;

  Choice* Choose(const GemmArgs& args);
  int Run(const Choice& choice, const GemmArgs& args);

  BenchDevice* device_;
  void* handle_ = nullptr;
  void* scratch_ = nullptr;
  std::map<Shape, Choice*> choices_;
  GemmArgs ceiling_;
};

}  // namespace triptych::bench
