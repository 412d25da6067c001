#include "services/worker/task_log.h"

#include <string>
#include <variant>
#include <vector>

namespace triptych::services {
namespace {

using base::LogLevel;
using scheduler::OutputEpoch;
using scheduler::Stage;

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};

}  // namespace

template <typename Assignment>
void TaskLog::Begin(const Assignment& assign, OutputEpoch epoch, Stage stage) {
  if (tasks_.size() < kMaxTasks) tasks_[assign.task] = {assign.request, epoch, stage};
  Line(LogLevel::kDebug, "task assigned", assign.task);
}

void TaskLog::OnMessage(const scheduler::SchedulerToWorker& message) {
  std::visit(Overloaded{
                 [&](const scheduler::AssignEncode& m) { Begin(m, OutputEpoch(), Stage::kEncode); },
                 [&](const scheduler::AssignPrefill& m) { Begin(m, m.epoch, Stage::kPrefill); },
                 [&](const scheduler::AssignDecode& m) { Begin(m, m.epoch, Stage::kDecode); },
                 [&](const scheduler::ReleaseTask& m) {
                   if (!tasks_.contains(m.task)) return;
                   Line(LogLevel::kDebug, "task released", m.task);
                   tasks_.erase(m.task);
                 },
                 [](const auto&) {},
             },
             message);
}

void TaskLog::OnTold(const scheduler::WorkerToScheduler& message) {
  const auto tell = [this](absl::string_view what, scheduler::TaskId task) {
    Line(LogLevel::kDebug, what, task);
  };
  std::visit(
      Overloaded{
          [&](const scheduler::TaskAccepted& m) { tell("task accepted", m.task); },
          [&](const scheduler::TaskRefused& m) { tell("task refused", m.task); },
          [&](const scheduler::TaskDelivered& m) { tell("task delivered", m.task); },
          [&](const scheduler::ItemLanded& m) { tell("item landed", m.task); },
          [&](const scheduler::ConsumerUnreachable& m) { tell("consumer out of reach", m.task); },
          [&](const scheduler::FirstTokenSampled& m) { tell("first token", m.task); },
          [&](const scheduler::DecodeStarted& m) { tell("decode started", m.task); },
          [&](const scheduler::TaskFailed& m) {
            Line(LogLevel::kWarning, "task failed", m.task, m.status.ToString());
            tasks_.erase(m.task);
          },
          [](const scheduler::WorkerReport&) {},
      },
      message);
}

void TaskLog::Line(LogLevel level, absl::string_view message, scheduler::TaskId task,
                   absl::string_view status) const {
  if (!log_.Writes(level)) return;
  base::LogContext context;
  if (const auto it = tasks_.find(task); it != tasks_.end()) {
    context.request_id = ToString(it->second.request);
    context.epoch = it->second.epoch.value();
    context.stage = ToString(it->second.stage);
  }
  const std::string name = ToString(task);
  std::vector<base::LogField> fields = {{"task", name}};
  if (!status.empty()) fields.emplace_back("status", status);
  log_.Log(level, message, context, fields);
}

}  // namespace triptych::services
