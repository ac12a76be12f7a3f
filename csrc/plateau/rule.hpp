// SPDX-License-Identifier: BSD-3-Clause
// THE RULE: the decision for one lane and one metric, and nothing else. Everything that steps a
// lane, on any device, calls these functions; the semantics stand nowhere else.
//
// It is torch 2.13's torch.optim.lr_scheduler.ReduceLROnPlateau.step, branch for branch, in
// float64; and where rates may rise transformers 5.23's GreedyLR.step, and the band around a KL
// divergence that PPO code keeps. Build it without contraction (-ffp-contract=off, --fmad=false):
// Python rounds after each operation, so must we.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/settings.hpp"
#include "plateau/types.hpp"

namespace plateau {

/// The gate of these settings. With sign -1 for mode min and 1 for max:
///
///     rel:  scale = 1 + sign * threshold, shift = sign * atol
///     abs:  scale = 1,                    shift = sign * threshold + sign * atol
///     safe: scale = sign * threshold,     shift = sign * atol
PLATEAU_HD inline Gate gate_of(std::uint8_t mode, double threshold, std::uint8_t threshold_mode,
                               double atol) noexcept {
  const bool maximize = mode == kMax;
  const double signed_threshold = maximize ? threshold : -threshold;
  const double extra = maximize ? atol : -atol;
  const bool absolute = threshold_mode == kAbs, safe = threshold_mode == kRelSafe;
  return {absolute ? 1.0 : (safe ? 0.0 : 1.0) + signed_threshold,
          (absolute ? signed_threshold : 0.0) + extra, maximize, safe};
}

PLATEAU_HD inline bool is_nan(double x) noexcept { return x != x; }
PLATEAU_HD inline bool is_finite(double x) noexcept { return x - x == 0.0; }

/// What a metric must beat to be better than `best`. An infinite best is its own safe gate: inf -
/// inf is none.
PLATEAU_HD inline double bar_of(double best, Gate gate) noexcept {
  if (!gate.safe) return best * gate.scale + gate.shift;
  const double size = best < 0 ? -best : best;
  return size * 0.0 == 0.0 ? best + size * gate.scale + gate.shift : best;
}

/// Strict, and false for NaN. A choice between two comparisons, so that lanes of both modes share a
/// vector. (GCC 16.2 takes NaN for better in vectors of `(maximize & above) | (!maximize &
/// below)`.)
PLATEAU_HD inline bool beats(double metric, double bar, bool maximize) noexcept {
  const bool above = metric > bar, below = metric < bar;
  return maximize ? above : below;
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

/// The same as Keras counts: the step on which the cooldown ends may be a bad one. The count
/// stops at the largest patience: where no rate can be lowered, nothing sets Keras' count back.
PLATEAU_HD inline std::int32_t tick_keras(std::int32_t clock, bool improved) noexcept {
  const std::int32_t up = clock + (clock < static_cast<std::int32_t>(kMost));
  return (improved & (clock >= -1)) ? 0 : clock == -1 ? 1 : up;
}

/// The bad steps that are borne. Keras and optax cut on bad step number `patience`, and on the
/// first for 0; torch on the one after it.
PLATEAU_HD inline std::int32_t borne(std::int32_t patience, std::uint8_t counting) noexcept {
  return patience - ((counting != kTorch) & (patience > 0));
}

/// Whether a cut is due: on bad step number borne + 1.
PLATEAU_HD inline bool fires(std::int32_t clock, std::int32_t borne) noexcept {
  return clock > borne;
}

/// The clock of a lane that is too young to fire, however long: there is room to count on.
PLATEAU_HD inline std::int32_t held_back(std::int32_t clock) noexcept {
  constexpr auto kLast = static_cast<std::int32_t>(kMost);
  return clock > kLast ? kLast : clock;
}

/// The clock after firing: the cooldown begins, whether or not a rate was lowered. As Keras counts,
/// only where one was.
PLATEAU_HD inline std::int32_t after_fire(std::int32_t clock, std::int32_t cooldown, bool reduced,
                                          std::uint8_t counting) noexcept {
  return (reduced | (counting != kKeras)) ? -cooldown : clock;
}

/// The rate after a cut. Returns `rate` itself when the change would be `eps` or less, so a floor
/// above the rate never raises it. The comparison is written as Python's max(), which keeps the
/// first operand when the second is not greater (NaN included).
PLATEAU_HD inline double cut(double rate, double factor, double min_lr, double eps) noexcept {
  const double scaled = rate * factor;
  const double lowered = min_lr > scaled ? min_lr : scaled;
  return rate - lowered > eps ? lowered : rate;
}

/// The rate after a raise, as cut() lowers it: a ceiling below the rate never lowers it.
PLATEAU_HD inline double raise(double rate, double factor, double max_lr, double eps) noexcept {
  const double scaled = rate / factor;
  const double raised = max_lr < scaled ? max_lr : scaled;
  return raised - rate > eps ? raised : rate;
}

/// On which side of the band around `target` a value lies: 1 above, -1 below, 0 within. What is not
/// above zero is never below, and NaN is within.
PLATEAU_HD inline int side_of_band(double value, double target, double width) noexcept {
  if (value > target * width) return 1;
  return ((value < target / width) & (value > 0.0)) ? -1 : 0;
}

/// The rate after a step of a band: a rate beyond its bounds comes back to them.
PLATEAU_HD inline double lower_in_band(double rate, double growth, double min_lr) noexcept {
  const double scaled = rate / growth;
  return scaled > min_lr ? scaled : min_lr;
}
PLATEAU_HD inline double raise_in_band(double rate, double growth, double max_lr) noexcept {
  const double scaled = rate * growth;
  return scaled < max_lr ? scaled : max_lr;
}

/// The float64 rate of a group. The master, unless somebody wrote the published copy since: then
/// that, because it is what the optimizer has been using.
PLATEAU_HD inline double current_rate(double master, double published) noexcept {
  return static_cast<double>(static_cast<float>(master)) == published ? master : published;
}

/// One more value in an exponential average that starts at zero, and that start's remaining weight;
/// dividing by what it has lost corrects the bias (Kingma and Ba 2015, section 3).
PLATEAU_HD inline double smoothed(double value, double smoothing, double& smooth,
                                  double& rest) noexcept {
  smooth = smoothing * smooth + (1.0 - smoothing) * value;
  rest = smoothing * rest;
  return smooth / (1.0 - rest);
}

/// Whether step number `step`, from 1, is one of a warm-up of so many.
PLATEAU_HD inline bool warms_up(std::int32_t steps, std::int64_t step) noexcept {
  return steps > 0 && step <= steps;
}

/// What the rate is multiplied by after `age` steps: from `start` to 1 in a straight line.
PLATEAU_HD inline double warm_up(double start, std::int32_t steps, std::int64_t age) noexcept {
  if (age >= steps) return 1.0;
  return start + (1.0 - start) * (static_cast<double>(age) / static_cast<double>(steps));
}

}  // namespace plateau
