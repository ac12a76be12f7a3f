// SPDX-License-Identifier: BSD-3-Clause
// What finishes a lane: a value, too many bad ones, too many at its floor.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/lanes.hpp"
#include "plateau/rule.hpp"

namespace plateau {

PLATEAU_HD inline std::uint8_t flags_of(const Lanes& lanes, std::int64_t lane) noexcept {
  return lanes.state.flags ? lanes.state.flags[lane] : std::uint8_t{0};
}

PLATEAU_HD inline void raise_flag(const Lanes& lanes, std::int64_t lane, Flag flag) noexcept {
  lanes.state.flags[lane] = static_cast<std::uint8_t>(lanes.state.flags[lane] | flag);
}

/// Finishes a lane, unless something else did before.
PLATEAU_HD inline void finish(const Lanes& lanes, std::int64_t lane, StopReason why) noexcept {
  if (flags_of(lanes, lane) & kFinished) return;
  raise_flag(lanes, lane, kFinished);
  lanes.state.stop_reason[lane] = why;
}

/// Whether a value by itself finishes its lane. In the order of Lightning's EarlyStopping: is it
/// finite, does it reach the target, does it pass the bound. `nan_is_bad`: NaN has no other rule.
PLATEAU_HD inline StopReason stop_by_value(const Settings& settings, std::int64_t lane,
                                           double value, bool maximize, bool nan_is_bad) noexcept {
  const double target = settings.stop_at[lane], bound = settings.diverge_at[lane];
  const bool is_bound = is_finite(bound);
  if (is_bound && (is_nan(value) ? nan_is_bad : !is_finite(value))) return kByDivergence;
  if (is_finite(target) && beats(value, target, maximize)) return kByTarget;
  return is_bound && beats(bound, value, maximize) ? kByDivergence : kGoesOn;
}

/// One more value by the gate and the best of `stop_patience`: too many bad ones finish the lane.
/// A warm-up moves the step of the best along, so that none of its steps are borne.
PLATEAU_HD inline void count_to_stop(const Lanes& lanes, std::int64_t lane, std::int64_t step,
                                     double value, bool warming) noexcept {
  const State& state = lanes.state;
  if (!state.judged) return;
  const Settings& settings = lanes.settings;
  const Gate gate = gate_of(settings.mode[lane], settings.stop_threshold[lane],
                            settings.stop_threshold_mode[lane], 0.0);
  double& best = state.stop_best[lane];
  const double from = !is_nan(best) ? best : gate.maximize ? -kInfinity : kInfinity;
  const bool improved = improves(value, from, gate);
  if (improved) best = value;
  const std::int64_t judged = ++state.judged[lane];
  if (improved || warming) {
    state.stop_best_at[lane] = judged;
    return;
  }
  const double borne = settings.stop_mult[lane] * static_cast<double>(state.stop_best_at[lane]) +
                       static_cast<double>(settings.stop_patience[lane]);
  if (static_cast<double>(judged + 1) > borne && step >= settings.min_steps[lane]) {
    finish(lanes, lane, kByPatience);
  }
}

/// One more bad step of a lane: at its floor too many of them finish it.
PLATEAU_HD inline void count_at_min(const Lanes& lanes, std::int64_t lane) noexcept {
  std::int32_t* bad = lanes.state.at_min_steps;
  if (!bad || !(flags_of(lanes, lane) & kAtMin)) return;
  if (++bad[lane] >= lanes.settings.patience_at_min[lane]) finish(lanes, lane, kAtFloor);
}

}  // namespace plateau
