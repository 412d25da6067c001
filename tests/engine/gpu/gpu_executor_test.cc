// What is defended: on a GPU, in bfloat16, the small model answers the reference question; a
// sequence handed over as bytes goes on with the same tokens; a step may follow one that is
// unfinished; decode steps replayed from graphs say what eager ones say, in any company.

#include "engine/gpu/gpu_executor.h"

#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/cuda.h"
#include "kernels/activation.h"
#include "kernels/cuda_context.h"
#include "models/weights/checkpoint.h"
#include "tests/engine/engine_question.h"

namespace triptych::engine {
namespace {

using scheduler::BufferId;
using scheduler::StepId;

bool Missing() {
  if (!base::DescribeCudaDevice(0).ok()) {
    triptych::testing::SkipTest("no GPU");
    return true;
  }
  return ReferencesMissing();
}

std::unique_ptr<Executor> MakeSmallWith(TransferMemory memory, ExecutorEvents events) {
  const std::string dir = triptych::testing::SmallModelDir();
  const auto config = models::LoadModelConfig(dir);
  const auto weights = models::Checkpoint::Open(dir);
  REQUIRE((config.ok() && weights.ok()));
  auto made =
      MakeGpuExecutor({.kv_blocks = 2048,
                       .embedding_slots = 4096,
                       .max_step_tokens = 1024,
                       .max_patches = 4096,
                       .transfer_memory = memory},
                      *config, **weights, std::move(events), [](const absl::Status& status) {
                        std::fprintf(stderr, "%s\n", status.ToString().c_str());
                        std::abort();
                      });
  INFO(made.status().ToString());
  REQUIRE(made.ok());
  return *std::move(made);
}

std::unique_ptr<Executor> MakeSmall(ExecutorEvents events) {
  return MakeSmallWith(TransferMemory::kHost, std::move(events));
}

void CopyNow(const base::MemoryRef& to, const base::MemoryRef& from) {
  auto stream = base::CudaStream::Create(base::CudaPriority::kHigh);
  REQUIRE(stream.ok());
  REQUIRE(stream->Copy(to, from).ok());
  REQUIRE(stream->Synchronize().ok());
}

std::vector<uint8_t> ToHost(const base::MemoryRef& memory) {
  std::vector<uint8_t> bytes(static_cast<size_t>(memory.bytes));
  CopyNow(base::HostRef(absl::MakeSpan(bytes)), memory);
  return bytes;
}

TEST_CASE("GpuExecutor: encode, prefill and decode answer as the published implementation",
          "[engine][gpu][golden]") {
  if (Missing()) return;
  const Question question = ReadQuestion();
  EngineBench engine(MakeSmall);
  CHECK(GreedyAnswer(engine, question) == question.greedy);
}

TEST_CASE("GpuExecutor: KV handed over as bytes goes on with the same tokens", "[engine][gpu]") {
  if (Missing()) return;
  const TransferMemory memory = GENERATE(TransferMemory::kHost, TransferMemory::kDevice);
  const Question question = ReadQuestion();
  EngineBench engine(
      [memory](ExecutorEvents events) { return MakeSmallWith(memory, std::move(events)); });
  engine.executor().ProvideInput(kTask, question.input);
  engine.Run(EncodePlan(question));
  const auto tokens = static_cast<int32_t>(question.ids.size());
  const int64_t bytes = tokens * engine.executor().capacity().kv_bytes_per_token;
  const scheduler::PieceBuffer buffer{BufferId(1), 4096, bytes};
  const scheduler::CacheRange all{.token_end = tokens,
                                  .layer_end = engine.executor().capacity().num_layers};
  engine.Submit(PrefillPlan(question));
  engine.executor().Export({kTask, StepId(1), buffer, all, Pages(3)});
  scheduler::StepResult result = engine.results.Take();
  const scheduler::ExportResult exported = engine.exports.Take();
  const TransferRegions& regions = engine.executor().transfer_regions();
  CHECK((regions.staging.space == base::MemorySpace::kCuda) == (memory == TransferMemory::kDevice));
  const std::vector<uint8_t> staged = ToHost(regions.Staging(buffer));
  CHECK(exported.checksum == base::Checksum64(staged.data(), staged.size()));
  CopyNow(regions.Landing(buffer), regions.Staging(buffer));
  Told<uint64_t> checksums;
  engine.executor().ChecksumLanded(buffer, [&](uint64_t sum) { checksums.Put(sum); });
  CHECK(checksums.Take() == exported.checksum);
  engine.executor().Import({kTask, buffer, all, Pages(100)});
  CHECK(engine.imports.Take() == buffer.id);
  const int32_t first = result.rows.at(0).tokens.at(0).token;
  scheduler::StepPlan stayed, moved;
  stayed.rows.push_back(DecodeRow(question, 0, first, 3));
  moved.rows.push_back(DecodeRow(question, 0, first, 100));
  CHECK(engine.Run(std::move(stayed)).rows.at(0).tokens.at(0).token ==
        engine.Run(std::move(moved)).rows.at(0).tokens.at(0).token);
}

TEST_CASE("GpuExecutor: a row takes the token that an unfinished step samples", "[engine][gpu]") {
  if (Missing()) return;
  const Question question = ReadQuestion();
  EngineBench engine(MakeSmall);
  const std::vector<int32_t> answer = GreedyAnswer(engine, question);
  engine.Submit(PrefillPlan(question));
  scheduler::StepPlan decode;
  decode.rows.push_back(DecodeRow(question, 0, -1, 3));
  decode.rows[0].sampled_by = scheduler::SampledBy{StepId(question.greedy.size() + 2), 0};
  engine.Submit(std::move(decode));
  CHECK(engine.results.Take().rows.at(0).tokens.at(0).token == answer.at(0));
  CHECK(engine.results.Take().rows.at(0).tokens.at(0).token == answer.at(1));
}

TEST_CASE("GpuExecutor: a decode row says the same in any company", "[engine][gpu]") {
  if (Missing()) return;
  const Question question = ReadQuestion();
  EngineBench engine(MakeSmall);
  const std::vector<int32_t> answer = GreedyAnswer(engine, question);
  for (size_t rows : {1, 3, 9, 33, 64}) {
    scheduler::StepPlan plan;
    for (size_t i = 0; i < rows; ++i) {
      scheduler::PlanRow row = DecodeRow(question, 0, answer.at(0), 3);
      // One sequence writes its token; the others only read along and write into their own block.
      if (i > 0) row.pages[row.token_begin / 16] = static_cast<int32_t>(200 + i);
      plan.rows.push_back(std::move(row));
    }
    const scheduler::StepResult result = engine.Run(std::move(plan));
    CHECK(result.rows.at(0).tokens.at(0).token == answer.at(1));
  }
}

// What the process below says and ends with.
constexpr char kInjected[] = "GpuExecutor injected: a kernel reads memory that is not there";
constexpr int kEnded = 42;

// Ends the process that it runs in, so it is not run with the others.
TEST_CASE(kInjected, "[.][engine][gpu]") {
  if (std::getenv("TRIPTYCH_TEST_INJECTED") == nullptr) {
    return triptych::testing::SkipTest("the next test runs it in a process of its own");
  }
  const std::string dir = triptych::testing::SmallModelDir();
  const auto config = models::LoadModelConfig(dir);
  const auto weights = models::Checkpoint::Open(dir);
  REQUIRE((config.ok() && weights.ok()));
  EngineBench engine([&](ExecutorEvents events) {
    auto made = MakeGpuExecutor({.kv_blocks = 2048, .embedding_slots = 4096}, *config, **weights,
                                std::move(events), [](const absl::Status& status) {
                                  std::fprintf(stderr, "ended: %s\n", status.ToString().c_str());
                                  std::_Exit(kEnded);
                                });
    REQUIRE(made.ok());
    return *std::move(made);
  });
  const Question question = ReadQuestion();
  REQUIRE(GreedyAnswer(engine, question) == question.greedy);
  auto stream = base::CudaStream::Create(base::CudaPriority::kHigh);
  REQUIRE(stream.ok());
  kernels::CudaContext context{.stream = stream->get()};
  // A kernel alone: a copy or a fill of such memory would be refused before it starts.
  void* const nowhere = reinterpret_cast<void*>(uint64_t{1} << 20);
  REQUIRE(kernels::Gelu({.x = nowhere, .count = 1 << 20, .dtype = base::DType::kBFloat16},
                        {.device = kernels::Device::kCuda, .cuda = &context})
              .ok());
  (void)stream->Synchronize();
  engine.Run(PrefillPlan(question));
  FAIL("a step went on after an illegal address");
}

TEST_CASE("GpuExecutor: an error of the device ends the process with one line", "[engine][gpu]") {
  if (Missing()) return;
  std::FILE* const pipe =
      popen(absl::StrCat("TRIPTYCH_TEST_INJECTED=1 exec ",
                         std::filesystem::read_symlink("/proc/self/exe").string(), " '", kInjected,
                         "' 2>&1")
                .c_str(),
            "r");
  REQUIRE(pipe != nullptr);
  std::string said;
  for (char line[512]; std::fgets(line, sizeof(line), pipe) != nullptr;) said += line;
  const int how = pclose(pipe);
  INFO(said << "status " << how);
  CHECK((WIFEXITED(how) && WEXITSTATUS(how) == kEnded));
  CHECK(std::count(said.begin(), said.end(), '\n') == 1);
  CHECK(said.find("illegal") != std::string::npos);
}

}  // namespace
}  // namespace triptych::engine
