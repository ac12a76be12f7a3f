// SPDX-License-Identifier: BSD-3-Clause
// The device's time loop: a thread takes a lane through all epochs, best and clock in registers.
// Threads of a warp read the same metric, or neighbouring ones.
#include <cstdint>

#include "cuda/check.cuh"
#include "cuda/kernel.cuh"
#include "cuda/launch.cuh"
#include "plateau/replay_lane.hpp"

namespace plateau {
namespace {

constexpr int kReplayThreads = static_cast<int>(kLanesPerCount);

template <class T>
__device__ void replay_plain(const Lanes& lanes, const History& history, const Record& record,
                             std::int64_t lane, Tally& tally) {
  T best = static_cast<T*>(lanes.state.best)[lane];
  std::int32_t clock = lanes.state.clock[lane];
  int outcome = 0;
  for (std::int64_t epoch = 0; epoch < history.epochs; ++epoch) {
    const T metric = metric_at<T>(history.at(epoch), lane);
    outcome = decide(lanes, lane, metric, best, clock);
    if (outcome & kFired) {
      const bool reduced = cut_lane(lanes, lane);
      outcome |= end_fire(lanes, lane, lanes.steps(lane) + epoch + 1, reduced, clock);
    }
    tally.count(outcome, static_cast<std::int32_t>(epoch + 1));
    write_entry(lanes, record, lane, epoch, outcome, best, clock, static_cast<double>(metric));
  }
  static_cast<T*>(lanes.state.best)[lane] = best;
  lanes.state.clock[lane] = clock;
  lanes.state.outcome[lane] = static_cast<std::uint8_t>(outcome);
}

template <class T, bool kParts>
__global__ void __launch_bounds__(kReplayThreads)
    replay_lanes(const Lanes lanes, const History history, const Record record) {
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kReplayThreads;
  const std::int64_t rest = lanes.n - begin;
  const std::int64_t end = begin + (rest < kReplayThreads ? rest : kReplayThreads);
  const std::int64_t lane = begin + threadIdx.x;
  if (lane < end) {
    Tally tally;
    if constexpr (kParts) {
      for (std::int64_t epoch = 0; epoch < history.epochs; ++epoch) {
        replay_step<T>(lanes, history, record, lane, epoch, tally);
      }
    } else {
      replay_plain<T>(lanes, history, record, lane, tally);
    }
    tally.store(record, lane, history.epochs);
  }
  count_steps(lanes, begin, end, history.epochs);
}

template <class T>
auto kernel_for(bool parts) {
  return parts ? &replay_lanes<T, true> : &replay_lanes<T, false>;
}

}  // namespace

void replay_cuda(const Lanes& lanes, const History& history, const Record& record, bool parts,
                 int device, void* stream) {
  if (lanes.n == 0 || history.epochs == 0) return;
  const DeviceGuard guard(device);
  const bool each = parts || record.explains();
  const auto kernel =
      lanes.best_dtype == Dtype::kFloat32 ? kernel_for<float>(each) : kernel_for<double>(each);
  launch(kernel, blocks(lanes.n, kReplayThreads), kReplayThreads, stream, lanes, history, record);
}

void load_replay() {
  for (const bool parts : {false, true}) {
    load(kernel_for<float>(parts));
    load(kernel_for<double>(parts));
  }
}

}  // namespace plateau
