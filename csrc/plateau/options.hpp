// SPDX-License-Identifier: BSD-3-Clause
// The optional parts of lanes: settings and state that a plain step neither reads nor has.
#pragma once

#include <cstdint>

#include "plateau/types.hpp"

namespace plateau {

/// What a lane does with a metric that is NaN.
enum class OnNan : std::uint8_t {
  kBad,     ///< a bad step, as in torch
  kSkip,    ///< no step at all
  kCut,     ///< cut now
  kFreeze,  ///< the lane is finished
};

/// Bits of a lane's flags.
enum Flag : std::uint8_t {
  kFinished = 1,   ///< steps pass the lane by
  kOnceFired = 2,  ///< the first cut was due: `initial_patience` is over
  kAtMin = 4,      ///< no rate of the lane can be lowered any more, as of the last cut
};

/// The last `capacity` cuts of single rates, oldest overwritten first. `written` counts all of
/// them.
struct Events {
  std::int64_t capacity = 0;
  std::int64_t* written = nullptr;
  std::int64_t* lane = nullptr;
  std::int64_t* group = nullptr;
  std::int64_t* step = nullptr;  ///< the lane's own, counted from 1
  double* old_rate = nullptr;
  double* new_rate = nullptr;
  double* metric = nullptr;
  double* best = nullptr;
};

struct Options {
  Setting<std::uint8_t> on_nan;
  Setting<std::uint8_t> safe_gate;  ///< gate_scale is what to add of |best|
  Setting<std::uint8_t> keras;      ///< counting
  Setting<std::int32_t> initial_patience;
  Setting<std::int32_t> accumulate;  ///< 1: off
  Setting<std::int32_t> window;      ///< 1: off
  Setting<double> smoothing;         ///< 0: off
  Setting<std::int32_t> max_reductions;
  Setting<std::int32_t> patience_at_min;
  Setting<std::int32_t> warmup_steps;
  Setting<double> warmup_start_factor;

  std::uint8_t* flags = nullptr;
  std::int64_t* age = nullptr;             ///< steps that the lane has taken
  std::int64_t* last_reduction = nullptr;  ///< age at that time, 0 for never
  std::int32_t* at_min_steps = nullptr;    ///< bad ones in a row
  double* total = nullptr;                 ///< of the values that are being accumulated
  std::int32_t* taken = nullptr;           ///< how many of them
  double* recent = nullptr;                ///< `recent_size` rows, a column per lane: the window
  std::int32_t recent_size = 1;
  std::int64_t* pushed = nullptr;  ///< values that ever entered the window
  double* smooth = nullptr;        ///< the average before bias correction
  double* smooth_rest = nullptr;   ///< weight that its start still has: smoothing to the power t
  Events events;
};

}  // namespace plateau
