// SPDX-License-Identifier: BSD-3-Clause
// The kernel of lanes with a mask or optional parts, and one rate each: step_lane() by a thread a
// lane, of lanes that the compiler knows not to have what they have not. What costs is to ask.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/kernel.cuh"
#include "plateau/lane.hpp"

namespace plateau {

/// The same lanes without what light ones have not: several rates each, another rule or a count of
/// Keras, a warm-up, noise, filters, stop_patience, patience_at_min, events. What is left is a
/// mask, what NaN does, limits, targets, an initial patience.
PLATEAU_HD inline void leave_out_heavy(Lanes& lanes) noexcept {
  lanes.offsets = nullptr;
  lanes.events_capacity = 0;
  lanes.settings.rule.all = kPlateau;
  lanes.settings.counting.each = nullptr;
  lanes.settings.counting.all = lanes.settings.counting.all == kOptax ? kOptax : kTorch;
  lanes.settings.warmup_steps.each = nullptr;
  lanes.settings.warmup_steps.all = 0;
  State& state = lanes.state;
  state.noise = state.total = state.recent = state.smooth = nullptr;
  state.judged = nullptr;
  state.at_min_steps = nullptr;
}

/// The same lanes without settings that are one per lane.
PLATEAU_HD inline void leave_out_own(Lanes& lanes) noexcept {
#define PLATEAU_ALIKE(name, type, of, off, domain, part, help) lanes.settings.name.each = nullptr;
  PLATEAU_SETTINGS(PLATEAU_ALIKE)
#undef PLATEAU_ALIKE
  lanes.one_gate = lanes.one_bears = lanes.one_cutting = true;
}

/// Whether lanes are the same without what `leave_out` leaves out.
inline bool are_without(const Lanes& lanes, void (*leave_out)(Lanes&)) noexcept {
  Lanes rest;
  std::memcpy(&rest, &lanes, sizeof lanes);
  leave_out(rest);
  return std::memcmp(&rest, &lanes, sizeof lanes) == 0;
}

/// With `kOwn` by settings of their own, with `kLight` of light lanes alone; `active` may be null.
template <class T, class M, bool kOwn, bool kLight>
__global__ void __launch_bounds__(kLaneThreads)
    step_parts(const Metrics metrics, const Lanes all, const std::uint8_t* active) {
  wait_for_those_before();
  Lanes lanes = all;
  lanes.offsets = nullptr;
  if constexpr (kLight) leave_out_heavy(lanes);
  if constexpr (!kOwn) leave_out_own(lanes);
  const std::int64_t lane = static_cast<std::int64_t>(blockIdx.x) * kLaneThreads + threadIdx.x;
  if (lane < lanes.n) {
    const std::int64_t steps = lanes.state.num_steps[blockIdx.x];
    const Seen<T> seen = seen_of<T>(lanes, lane);
    const std::int64_t step = steps - lanes.state.born[lane] + 1;
    const bool here = !active || active[lane];
    double metric = load_metrics<double, M, 1>(metrics, lane).at[0];  // last: it is converted
    int outcome = 0;
    if (here) {
      Told told;
      const int ask = begin_step(lanes, lane, seen, step, metric, told);
      outcome = complete_step<T>(lanes, lane, step, ask, metric);
    } else {
      pass_by(lanes, lane);
    }
    lanes.state.outcome[lane] = static_cast<std::uint8_t>(outcome);
  }
  count_step(lanes);
}

}  // namespace plateau
