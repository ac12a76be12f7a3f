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

constexpr int kReplayThreads = 128;

template <class T>
__global__ void replay_lanes(const Lanes lanes, const History history, const Record record) {
  const std::int64_t lane = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (lane >= lanes.n) return;
  T best = static_cast<T*>(lanes.best)[lane];
  std::int32_t clock = lanes.clock[lane];
  Tally tally;
  int outcome = 0;
  for (std::int64_t epoch = 0; epoch < history.epochs; ++epoch) {
    const T metric = metric_at<T>(history.at(epoch), lane);
    outcome = decide(lanes.settings, lane, metric, best, clock);
    if (outcome & kReduced) {
      if (cut_lane(lanes, lane)) {
        ++lanes.num_reductions[lane];
      } else {
        outcome &= ~kReduced;
      }
    }
    tally.count(outcome, static_cast<std::int32_t>(epoch + 1));
    write_entry(lanes, record, lane, epoch, outcome, best, clock, static_cast<double>(metric));
  }
  static_cast<T*>(lanes.best)[lane] = best;
  lanes.clock[lane] = clock;
  lanes.outcome[lane] = static_cast<std::uint8_t>(outcome);
  tally.store(record, lane, history.epochs);
  if (lane == 0) *lanes.num_steps += history.epochs;
}

template <class T>
__global__ void replay_options(const Lanes lanes, const Options options, const History history,
                               const Record record) {
  const std::int64_t lane = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (lane >= lanes.n) return;
  Tally tally;
  for (std::int64_t epoch = 0; epoch < history.epochs; ++epoch) {
    replay_step<T>(lanes, options, history, record, lane, epoch, tally);
  }
  tally.store(record, lane, history.epochs);
  if (lane == 0) *lanes.num_steps += history.epochs;
}

}  // namespace

void replay_cuda(const Lanes& lanes, const History& history, const Record& record, int device,
                 void* stream) {
  if (lanes.n == 0 || history.epochs == 0) return;
  const DeviceGuard guard(device);
  const auto kernel =
      lanes.best_dtype == Dtype::kFloat32 ? &replay_lanes<float> : &replay_lanes<double>;
  launch(kernel, blocks(lanes.n, kReplayThreads), kReplayThreads, stream, lanes, history, record);
}

void replay_cuda(const Lanes& lanes, const Options& options, const History& history,
                 const Record& record, int device, void* stream) {
  if (lanes.n == 0 || history.epochs == 0) return;
  const DeviceGuard guard(device);
  const auto kernel =
      lanes.best_dtype == Dtype::kFloat32 ? &replay_options<float> : &replay_options<double>;
  launch(kernel, blocks(lanes.n, kReplayThreads), kReplayThreads, stream, lanes, options, history,
         record);
}

}  // namespace plateau
