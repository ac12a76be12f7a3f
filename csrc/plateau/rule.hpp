// SPDX-License-Identifier: BSD-3-Clause
// THE RULE: the decision for one lane and one metric, and nothing else. Everything that steps a
// lane, on any device, calls these functions; the semantics stand nowhere else.
//
// It is torch 2.13's torch.optim.lr_scheduler.ReduceLROnPlateau.step, branch for branch, in
// float64. Build it without contraction (-ffp-contract=off, --fmad=false): Python rounds after
// each operation, so must we.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/types.hpp"

namespace plateau {

/// What a metric must beat to be better than `best`. An infinite best is its own safe gate: inf -
/// inf is none.
PLATEAU_HD inline double bar_of(double best, Gate gate) noexcept {
  if (!gate.safe) return best * gate.scale + gate.shift;
  const double size = best < 0 ? -best : best;
  return size * 0.0 == 0.0 ? best + size * gate.scale + gate.shift : best;
}

/// Strict, and false for NaN. Without a branch, so that lanes of both modes share a vector.
PLATEAU_HD inline bool beats(double metric, double bar, bool maximize) noexcept {
  return (maximize & (metric > bar)) | (!maximize & (metric < bar));
}

/// Whether `metric` is better than `best` by the gate.
PLATEAU_HD inline bool improves(double metric, double best, Gate gate) noexcept {
  return beats(metric, bar_of(best, gate), gate.maximize);
}

/// The clock after one step: above zero it counts bad steps in a row, below zero the cooldown
/// steps that are left. A cooling step is ignored, however good or bad.
PLATEAU_HD inline std::int32_t tick(std::int32_t clock, bool improved) noexcept {
  return (improved & (clock >= 0)) ? 0 : clock + 1;
}

/// The same as Keras counts: the step on which the cooldown ends may be a bad one.
PLATEAU_HD inline std::int32_t tick_keras(std::int32_t clock, bool improved) noexcept {
  if (clock < -1) return clock + 1;
  return improved ? 0 : (clock < 0 ? 0 : clock) + 1;
}

/// Whether the lane is cut: on bad step number patience + 1.
PLATEAU_HD inline bool fires(std::int32_t clock, std::int32_t patience) noexcept {
  return clock > patience;
}

/// The rate after a cut. Returns `rate` itself when the change would be `eps` or less, so a floor
/// above the rate never raises it. The comparison is written as Python's max(), which keeps the
/// first operand when the second is not greater (NaN included).
PLATEAU_HD inline double cut(double rate, double factor, double min_lr, double eps) noexcept {
  const double scaled = rate * factor;
  const double lowered = min_lr > scaled ? min_lr : scaled;
  return rate - lowered > eps ? lowered : rate;
}

/// The float64 rate of a group. The master, unless somebody wrote the published copy since: then
/// that, because it is what the optimizer has been using.
PLATEAU_HD inline double current_rate(double master, float published) noexcept {
  return static_cast<float>(master) == published ? master : static_cast<double>(published);
}

/// One more value in an exponential average that starts at zero, and that start's remaining weight;
/// dividing by what it has lost corrects the bias (Kingma and Ba 2015, section 3).
PLATEAU_HD inline double smoothed(double value, double smoothing, double& smooth,
                                  double& rest) noexcept {
  smooth = smoothing * smooth + (1.0 - smoothing) * value;
  rest = smoothing * rest;
  return smooth / (1.0 - rest);
}

/// What the rate is multiplied by after `age` steps: from `start` to 1 in a straight line.
PLATEAU_HD inline double warm_up(double start, std::int32_t steps, std::int64_t age) noexcept {
  if (age >= steps) return 1.0;
  return start + (1.0 - start) * (static_cast<double>(age) / static_cast<double>(steps));
}

}  // namespace plateau
