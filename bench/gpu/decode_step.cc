// A whole decode step on random weights: checks its parts against float64, finds the kernels'
// choices in the whole step, and tells how much of the copy bandwidth it reaches.
// Usage: decode_step check|ops|step|find SHAPE OUT.json [BATCHxCONTEXT | BATCHxragged ...]

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "bench/gpu/decode_model.h"
#include "bench/gpu/decode_reference.h"
#include "bench/gpu/timed_graph.h"

namespace triptych::bench {
namespace {

using kernels::DecodeLinearArgs;
using kernels::DecodeLinearChoice;

// --- Choices ---------------------------------------------------------------------------------

// The most stages that leave room for `blocks` blocks on a multiprocessor.
int StagesFor(const DecodeLinearArgs& args, DecodeLinearChoice choice, int blocks) {
  for (choice.stages = 16; choice.stages > 2; --choice.stages) {
    const int64_t room = (228 / blocks - 1) * 1024;
    if (kernels::internal::DecodeLinearSharedBytes(args, choice) <= room) break;
  }
  return choice.stages;
}

std::vector<DecodeLinearChoice> Candidates(const DecodeLinearArgs& args, int sm_count) {
  std::vector<DecodeLinearChoice> all;
  for (int tile = 0; tile < kernels::kNumDecodeTiles; ++tile) {
    for (const int split : {1, 2, 4, 8}) {
      for (const int blocks : {1, 2}) {
        DecodeLinearChoice choice = {.tile = tile, .split = split, .trigger = 1000};
        choice.stages = StagesFor(args, choice, blocks);
        if (!kernels::internal::DecodeLinearFits(args, choice, sm_count)) continue;
        const int64_t tiles = (args.outputs + kernels::kDecodeTiles[tile].rows() - 1) /
                              kernels::kDecodeTiles[tile].rows() * split;
        if (tiles < sm_count / 2 || (split > 1 && tiles > sm_count + sm_count / 4)) continue;
        if (!all.empty() && all.back().tile == tile && all.back().split == split &&
            all.back().stages == choice.stages) {
          continue;
        }
        all.push_back(choice);
      }
    }
  }
  return all;
}

std::string Text(const DecodeLinearChoice& c) {
  const kernels::DecodeTile& tile = kernels::kDecodeTiles[c.tile];
  char text[96];
  std::snprintf(text, sizeof(text), "%dx%dx%d/%d s%d t%d", tile.chunk, tile.chunks, tile.boxes,
                c.split, c.stages, c.trigger);
  return text;
}

// --- Timing ----------------------------------------------------------------------------------

double TimeOnce(DecodeModel& model, const StepChoices& choices, int replays) {
  model.SetRows(model.lengths(), choices);
  return TimeGraph(1, replays, [&](cudaStream_t stream, int) { model.Enqueue(choices, stream); })
      .median_us;
}

// The fastest of many device to device copies of 1 GiB, read and written bytes.
double CopyGbPerSecond() {
  constexpr int64_t kBytes = int64_t{1} << 30;
  void *from = nullptr, *to = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  CheckCuda(cudaMalloc(&from, kBytes), "malloc");
  CheckCuda(cudaMalloc(&to, kBytes), "malloc");
  FillRandom(from, kBytes);
  CheckCuda(cudaEventCreate(&begin), "event");
  CheckCuda(cudaEventCreate(&end), "event");
  float best_ms = 1e9;
  for (int i = 0; i < 24; ++i) {
    float ms = 0;
    CheckCuda(cudaEventRecord(begin), "record");
    if (i % 2 == 0) {
      CheckCuda(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, nullptr), "copy");
    } else {
      CopyByKernel(to, from, kBytes);
    }
    CheckCuda(cudaEventRecord(end), "record");
    CheckCuda(cudaEventSynchronize(end), "synchronize");
    CheckCuda(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    if (i > 3) best_ms = std::min(best_ms, ms);
  }
  CheckCuda(cudaFree(from), "free");
  CheckCuda(cudaFree(to), "free");
  return 2.0 * kBytes / best_ms / 1e6;
}

// One op on every layer's weights in turn, so that the L2 cache holds none of them.
double TimeLinear(DecodeModel& model, DecodeOp op, const DecodeLinearChoice& choice) {
  StepChoices choices;
  choices.linear[op] = choice;
  const int calls = op == kHead ? 2 : model.shape().layers;
  return TimeGraph(calls, 6,
                   [&](cudaStream_t stream, int i) {
                     model.EnqueueLinear(op, op == kHead ? 0 : i, choices, stream);
                   })
      .median_us;
}

struct Ranked {
  double us;
  DecodeLinearChoice choice;
};

std::vector<Ranked> Rank(DecodeModel& model, DecodeOp op) {
  std::vector<Ranked> ranked;
  for (const DecodeLinearChoice& choice :
       Candidates(model.Linear(op, 0, model.rows()), model.sm_count())) {
    ranked.push_back({TimeLinear(model, op, choice), choice});
  }
  std::sort(ranked.begin(), ranked.end(),
            [](const Ranked& a, const Ranked& b) { return a.us < b.us; });
  return ranked;
}

// --- Checks ----------------------------------------------------------------------------------

class Checker {
 public:
  explicit Checker(DecodeModel& model) : model_(model) {}

  bool Run() {
    for (const int rows : {1, 5, 24, 64}) {
      std::vector<int32_t> lengths;
      for (int r = 0; r < rows; ++r) lengths.push_back(1 + (r * 397 + rows * 61) % 2100);
      lengths[0] = 1040;
      StepChoices choices;
      model_.SetRows(lengths, choices);
      RandomInputs();
      for (int op = 0; op < kNumOps; ++op) CheckOp(static_cast<DecodeOp>(op));
      for (const int target : {1, 66, 400}) {
        for (const int cluster : {1, 2, 8}) {
          CheckAttention({.cluster = cluster, .target = target});
        }
      }
    }
    CheckGraph();
    std::printf("check: %s\n", failures_ == 0 ? "all right" : "FAILED");
    return failures_ == 0;
  }

 private:
  void RandomInputs() {
    std::mt19937 generator(model_.rows());
    const auto fill = [&](void* to, int64_t count) {
      std::vector<uint16_t> bits(count);
      for (uint16_t& b : bits) {  // both signs, 2^-2 .. 2
        b = static_cast<uint16_t>((generator() & 0x807f) | ((0x7d + generator() % 3) << 7));
      }
      CheckCuda(cudaMemcpy(to, bits.data(), count * 2, cudaMemcpyHostToDevice), "fill");
    };
    const ModelShape& s = model_.shape();
    fill(model_.x, int64_t{model_.rows()} * s.hidden);
    fill(model_.qkv, model_.rows() * s.qkv());
    fill(model_.attention, int64_t{model_.rows()} * s.heads * 128);
    fill(model_.mlp, int64_t{model_.rows()} * s.mlp);
  }

  void CheckOp(DecodeOp op) {
    if (op == kHead && model_.rows() > 8 && model_.rows() != 64) return;
    const DecodeLinearArgs args = model_.Linear(op, 1 % model_.shape().layers, model_.rows());
    const int64_t count = args.rows * args.y_stride, bytes = count * (args.float_output ? 4 : 2);
    const std::vector<double> right = ReferenceLinear(args);
    void *inputs = nullptr, *y = nullptr;
    CheckCuda(cudaMalloc(&y, bytes), "malloc");
    double worst = 0;
    int tried = 0;
    std::vector<DecodeLinearChoice> all = Candidates(args, model_.sm_count());
    for (size_t i = 0, known = all.size(); i < known; ++i) {
      all.push_back(all[i]);
      all.back().trigger = 3;
    }
    for (const DecodeLinearChoice& choice : all) {
      DecodeLinearArgs run = args;
      run.y = y;
      CheckCuda(cudaMemset(y, 0xff, bytes), "poison");
      CheckCuda(static_cast<cudaError_t>(kernels::internal::DecodeLinearCuda(
                    run, choice, model_.sm_count(), true, nullptr)),
                "launch");
      CheckCuda(cudaDeviceSynchronize(), Text(choice).c_str());
      const double error =
          RelativeError(args.float_output ? DownloadFloats(static_cast<float*>(y), count)
                                          : DownloadBf16(y, count),
                        right);
      worst = std::max(worst, error);
      ++tried;
      if (!(error < 6e-3)) {
        ++failures_;
        std::printf("  wrong: %s rows %d %s error %g\n", kOpNames[op], model_.rows(),
                    Text(choice).c_str(), error);
      }
    }
    CheckCuda(cudaFree(y), "free");
    CheckCuda(cudaFree(inputs), "free");
    std::printf("check %-8s rows %2d: %3d choices, worst error %.2e\n", kOpNames[op], model_.rows(),
                tried, worst);
    std::fflush(stdout);
  }

  void CheckAttention(const kernels::DecodeAttentionChoice& choice) {
    StepChoices choices;
    choices.attention = choice;
    model_.SetRows(model_.lengths(), choices);
    const std::vector<double> right = ReferenceAttention(model_, 1);
    const std::vector<double> tokens = ReferenceNewTokens(model_);
    const int64_t count = int64_t{model_.rows()} * model_.shape().heads * 128;
    void* kept = nullptr;
    CheckCuda(cudaMalloc(&kept, count * 2), "malloc");
    CheckCuda(cudaMemcpy(kept, model_.attention, count * 2, cudaMemcpyDeviceToDevice), "keep");
    double worst = 0;
    for (int again = 0; again < 2; ++again) {  // twice: the counters must be back at zero
      CheckCuda(cudaMemset(model_.attention, 0xff, count * 2), "poison");
      model_.EnqueueAttention(1, choices, nullptr);
      CheckCuda(cudaDeviceSynchronize(), "attention");
      worst = std::max(worst, RelativeError(DownloadBf16(model_.attention, count), right));
    }
    const double stored = RelativeError(StoredNewTokens(model_, 1), tokens);
    if (!(worst < 8e-3) || !(stored < 4e-3)) ++failures_;
    std::printf("check attention rows %2d target %3d cluster %d: error %.2e, new tokens %.2e\n",
                model_.rows(), choice.target, choice.cluster, worst, stored);
    std::fflush(stdout);
    CheckCuda(cudaMemcpy(model_.attention, kept, count * 2, cudaMemcpyDeviceToDevice), "restore");
    CheckCuda(cudaFree(kept), "free");
  }

  // Bits must not depend on whether kernels overlap.
  void CheckGraph() {
    for (const int rows : {1, 8, 40, 64}) {
      std::vector<int32_t> lengths;
      for (int r = 0; r < rows; ++r) lengths.push_back(600 + 31 * r);
      StepChoices choices;
      for (int op = 0; op < kNumOps; ++op) {
        const auto all =
            Candidates(model_.Linear(static_cast<DecodeOp>(op), 0, rows), model_.sm_count());
        choices.linear[op] = all[static_cast<size_t>(rows) % all.size()];
      }
      choices.attention.cluster = rows == 1 ? 8 : rows == 8 ? 2 : 1;
      std::vector<double> first;
      for (const bool pdl : {false, true}) {
        choices.pdl = pdl;
        for (const int trigger : {1000, 2}) {
          for (DecodeLinearChoice& linear : choices.linear) linear.trigger = trigger;
          model_.SetRows({}, choices);
          model_.SetRows(lengths, choices);
          // Eight steps, each fed with the token of the one before.
          TimeGraph(8, 1, [&](cudaStream_t stream, int) { model_.Enqueue(choices, stream); });
          std::vector<double> logits =
              DownloadFloats(model_.logits, int64_t{rows} * model_.shape().vocab);
          if (first.empty()) first = logits;
          const bool same = first == logits;
          if (!same) ++failures_;
          std::printf("check step rows %2d pdl %d trigger %4d: %s\n", rows, pdl ? 1 : 0, trigger,
                      same ? "same bits" : "OTHER BITS");
          std::fflush(stdout);
        }
      }
    }
  }

  DecodeModel& model_;
  int failures_ = 0;
};

// --- Searching -------------------------------------------------------------------------------

// Coordinate descent over the whole step from the best of each op alone.
class Search {
 public:
  Search(DecodeModel& model, int kept) : model_(model) {
    for (int op = 0; op < kNumOps; ++op) {
      std::vector<Ranked> ranked = Rank(model, static_cast<DecodeOp>(op));
      ranked.resize(std::min<size_t>(ranked.size(), static_cast<size_t>(kept)));
      best_.linear[op] = ranked[0].choice;
      best_.linear[op].trigger = 5;
      ranked_.push_back(ranked);
    }
    best_.attention = {.cluster = model.rows() <= 8 ? 8 : 1};
    best_.attention.target = TargetFor(best_.attention, 4);
  }

  // Known choices of the products, for another context: the attention alone is searched.
  Search(DecodeModel& model, const StepChoices& known) : model_(model), best_(known) {
    best_.attention.target = TargetFor(best_.attention, 4);
  }

  StepChoices Run(int rounds) {
    best_us_ = TimeOnce(model_, best_, kReplays);
    std::printf("  from %.1f us\n", best_us_);
    for (int round = 0; round < rounds; ++round) {
      const double before = best_us_;
      for (int op = kNumOps - 1; op >= 0 && !ranked_.empty(); --op) {
        TryOp(static_cast<DecodeOp>(op));
      }
      TryAttention();
      if (best_us_ > before * 0.998) break;
    }
    std::printf("  to %.1f us after %d trials\n", best_us_, trials_);
    return best_;
  }

 private:
  static constexpr int kReplays = 7;

  double Try(const StepChoices& choices) {
    ++trials_;
    const double us = TimeOnce(model_, choices, kReplays);
    if (us < best_us_ * 0.9995) {
      best_us_ = us;
      best_ = choices;
    }
    return us;
  }

  void TryOp(DecodeOp op) {
    for (const Ranked& ranked : ranked_[op]) {
      StepChoices choices = best_;
      DecodeLinearChoice& linear = choices.linear[op];
      linear = ranked.choice;
      linear.trigger = best_.linear[op].trigger;
      Try(choices);
    }
    for (const int trigger : {1000, 10, 5, 2, 0}) {
      StepChoices choices = best_;
      if (std::exchange(choices.linear[op].trigger, trigger) != trigger) Try(choices);
    }
  }

  // Parts for `half_blocks` / 2 blocks a multiprocessor.
  int TargetFor(const kernels::DecodeAttentionChoice& choice, int half_blocks) const {
    return std::max(
        1, half_blocks * model_.sm_count() / (2 * model_.shape().kv_heads * choice.cluster));
  }

  void TryAttention() {
    for (const bool beside : {true, false}) {
      for (const int cluster : {1, 2, 4, 8}) {
        StepChoices choices = best_;
        choices.attention.beside = beside;
        choices.attention.cluster = cluster;
        std::vector<int> targets = {model_.rows()};
        for (const int half_blocks : {2, 4, 6, 8, 16}) {
          targets.push_back(TargetFor(choices.attention, half_blocks));
        }
        std::sort(targets.begin(), targets.end());
        targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
        for (const int target : targets) {
          choices.attention.target = target;
          const double us = Try(choices);
          std::printf("  attention cluster %d target %d beside %d: %.1f us\n", cluster, target,
                      beside ? 1 : 0, us);
        }
      }
    }
    StepChoices choices = best_;
    choices.attention.early = !choices.attention.early;
    Try(choices);
  }

  DecodeModel& model_;
  std::vector<std::vector<Ranked>> ranked_;
  StepChoices best_;
  double best_us_ = 0;
  int trials_ = 0;
};

// --- Cases -----------------------------------------------------------------------------------

struct Case {
  std::string name;
  std::vector<int32_t> lengths;
  int64_t tokens() const {
    int64_t sum = 0;
    for (const int32_t length : lengths) sum += length;
    return sum;
  }
};

Case ParseCase(const std::string& text) {
  Case parsed = {.name = text, .lengths = {}};
  const int batch = std::atoi(text.c_str());
  const std::string context = text.substr(text.find('x') + 1);
  std::mt19937 generator(5);
  for (int r = 0; r < batch; ++r) {
    const int ragged = 1024 + static_cast<int>(generator() % (7 * 1024 + 1));
    parsed.lengths.push_back(context == "ragged" ? ragged : std::atoi(context.c_str()));
  }
  return parsed;
}

void TimeParts(DecodeModel& model, double tokens, const StepChoices& choices, std::string* json) {
  char text[256];
  for (int op = 0; op < kNumOps; ++op) {
    const double us = TimeLinear(model, static_cast<DecodeOp>(op), choices.linear[op]);
    std::snprintf(text, sizeof(text), ", \"%s_us\": %.2f, \"%s\": \"%s\"", kOpNames[op], us,
                  kOpNames[op], Text(choices.linear[op]).c_str());
    *json += text;
    std::printf("  %-8s %7.2f us %5.0f GB/s  %s\n", kOpNames[op], us,
                static_cast<double>(model.OpBytes(static_cast<DecodeOp>(op))) / us / 1e3,
                Text(choices.linear[op]).c_str());
  }
  const double attention = TimeGraph(model.shape().layers, 6, [&](cudaStream_t stream, int i) {
                             model.EnqueueAttention(i, choices, stream);
                           }).median_us;
  const double tail = TimeGraph(4, 6, [&](cudaStream_t stream, int) {
                        model.EnqueueTail(choices.pdl, stream);
                      }).median_us;
  const double kv_gb = tokens * model.shape().kv_bytes_per_token() / model.shape().layers / 1e9;
  std::printf("  attention %6.2f us %5.0f GB/s (target %d cluster %d beside %d), arg-max %.2f us\n",
              attention, kv_gb / attention * 1e6, choices.attention.target,
              choices.attention.cluster, choices.attention.beside ? 1 : 0, tail);
  std::snprintf(text, sizeof(text), ", \"attention_us\": %.2f, \"arg_max_us\": %.2f", attention,
                tail);
  *json += text;
}

// The lines of a table of choices (kernels/decode_choices.h).
void PrintLines(const DecodeModel& model, int64_t context, const StepChoices& choices) {
  for (int op = 0; op < kNumOps; ++op) {
    const DecodeLinearArgs args = model.Linear(static_cast<DecodeOp>(op), 0, model.rows());
    const DecodeLinearChoice& c = choices.linear[op];
    const kernels::DecodeTile& tile = kernels::kDecodeTiles[c.tile];
    std::printf("line linear %lld %lld %d %d %dx%dx%d %d %d %d\n",
                static_cast<long long>(args.inputs), static_cast<long long>(args.outputs),
                args.swiglu ? 1 : 0, model.rows(), tile.chunk, tile.chunks, tile.boxes, c.split,
                c.stages, c.trigger);
  }
  std::printf("line attention %d %d %d %lld %d %d %d %d\n", model.shape().heads,
              model.shape().kv_heads, model.rows(), static_cast<long long>(context),
              choices.attention.cluster, choices.attention.target, choices.attention.beside ? 1 : 0,
              choices.attention.early ? 1 : 0);
}

double LaunchUs(DecodeModel& model, const StepChoices& choices) {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replayable = nullptr;
  CheckCuda(cudaStreamCreate(&stream), "stream");
  CheckCuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  model.Enqueue(choices, stream);
  CheckCuda(cudaStreamEndCapture(stream, &graph), "capture");
  CheckCuda(cudaGraphInstantiate(&replayable, graph, 0), "instantiate");
  const base::RealClock clock;
  std::vector<double> times;
  for (int i = 0; i < 30; ++i) {
    const base::TimePoint begin = clock.Now();
    CheckCuda(cudaGraphLaunch(replayable, stream), "launch");
    times.push_back(std::chrono::duration<double, std::micro>(clock.Now() - begin).count());
    CheckCuda(cudaStreamSynchronize(stream), "synchronize");
  }
  std::sort(times.begin(), times.end());
  CheckCuda(cudaGraphExecDestroy(replayable), "destroy");
  CheckCuda(cudaGraphDestroy(graph), "destroy");
  return times[times.size() / 2];
}

int Main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: decode_step check|step SHAPE OUT.json [CASE ...]\n");
    return 2;
  }
  const std::string mode = argv[1];
  ModelShape shape = std::string(argv[2]) == "3b" ? Shape3B() : Shape7B();
  if (mode == "check") {
    shape.layers = 3;
    DecodeModel model(shape, 64, 64 * 4096);
    return Checker(model).Run() ? 0 : 1;
  }
  std::vector<Case> cases;
  int64_t most = 0;
  for (int i = 4; i < argc; ++i) {
    cases.push_back(ParseCase(argv[i]));
    most = std::max(most, cases.back().tokens());
  }
  const double before = CopyGbPerSecond();
  DecodeModel model(shape, 64, most + 64 * 16);
  std::string json;
  std::vector<double> times;
  std::map<int, StepChoices> found;  // by rows
  const int rounds = mode == "find" ? 2 : 1;
  for (const Case& one : cases) {
    model.SetRows(one.lengths, {});
    std::printf("%s %s\n", shape.name.c_str(), one.name.c_str());
    const auto known = found.find(model.rows());
    Search search =
        known == found.end() ? Search(model, mode == "find" ? 6 : 3) : Search(model, known->second);
    const StepChoices choices = search.Run(rounds);
    found.emplace(model.rows(), choices);
    std::vector<double> runs;
    for (int i = 0; i < 3; ++i) runs.push_back(TimeOnce(model, choices, 15));
    std::sort(runs.begin(), runs.end());
    times.push_back(runs[1]);
    StepChoices serial = choices;
    serial.pdl = false;
    char text[256];
    std::snprintf(text, sizeof(text),
                  "%s\n {\"shape\": \"%s\", \"case\": \"%s\", \"step_us\": %.1f, \"low_us\": %.1f, "
                  "\"high_us\": %.1f, \"no_pdl_us\": %.1f, \"launch_us\": %.2f",
                  json.empty() ? "" : ",", shape.name.c_str(), one.name.c_str(), runs[1], runs[0],
                  runs[2], TimeOnce(model, serial, 7), LaunchUs(model, choices));
    json += text;
    TimeParts(model, static_cast<double>(one.tokens()), choices, &json);
    PrintLines(model, one.tokens() / model.rows(), choices);
    const double gb = (shape.weight_bytes() + one.tokens() * shape.kv_bytes_per_token()) / 1e9;
    std::snprintf(text, sizeof(text), ", \"gb\": %.4f}", gb);
    json += text;
    std::printf("  step %.1f us, %.1f %% of copy before\n", runs[1], gb / runs[1] * 1e8 / before);
    std::fflush(stdout);
  }
  const double after = CopyGbPerSecond(), copy = std::max(before, after);
  std::printf("copy %.0f before, %.0f after\n", before, after);
  for (size_t i = 0; i < cases.size(); ++i) {
    const double gb = (shape.weight_bytes() + cases[i].tokens() * shape.kv_bytes_per_token()) / 1e9;
    std::printf("%s %-12s %8.1f us  %5.1f %% of copy\n", shape.name.c_str(), cases[i].name.c_str(),
                times[i], gb / times[i] * 1e8 / copy);
  }
  std::FILE* file = std::fopen(argv[3], "w");
  if (file == nullptr) return 1;
  std::fprintf(file, "{\"copy_before\": %.1f, \"copy_after\": %.1f, \"cases\": [%s\n]}\n", before,
               after, json.c_str());
  return std::fclose(file) == 0 ? 0 : 1;
}

}  // namespace
}  // namespace triptych::bench

int main(int argc, char** argv) { return triptych::bench::Main(argc, argv); }
