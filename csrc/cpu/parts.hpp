// SPDX-License-Identifier: BSD-3-Clause
// The settings of lanes with optional parts as arrays, and a block of such lanes in the middle of a
// step.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plateau/lanes.hpp"
#include "plateau/rule.hpp"

namespace plateau {

constexpr int kPart = 256;  // lanes that are taken together

/// A setting as an array for the lanes of any block: its own, or its one value repeated. Filled
/// only if it is asked for.
template <class S>
class Spread {
 public:
  void fill(const Setting<S>& setting, std::int64_t lanes) noexcept {
    each_ = setting.each;
    if (!each_) std::fill_n(same_, std::min<std::int64_t>(lanes, kPart), setting.all);
  }
  const S* at(std::int64_t begin) const noexcept { return each_ ? each_ + begin : same_; }

 private:
  const S* each_ = nullptr;
  alignas(64) S same_[kPart];
};

/// What the lanes of a batch have, and the settings of it, spread out.
struct Parts {
  explicit Parts(const Lanes& lanes) noexcept {
    const Settings& given = lanes.settings;
    const Settings off;  // what each is unless told
    const State& state = lanes.state;
    const auto spread = [&lanes](bool asked, auto& settings, const auto& setting) {
      if (asked) settings.fill(setting, lanes.n);
      return asked;
    };
    const auto spread_if_told = [&spread](auto& settings, const auto& setting, const auto& unless) {
      return spread(setting.each || setting.all != unless.all, settings, setting);
    };
    one_gate = lanes.one_gate;
    stops_alike = !state.judged || (!given.mode.each && !given.stop_threshold.each &&
                                    !given.stop_threshold_mode.each);
    keras = given.counting.each || given.counting.all == kKeras;
    nans = spread_if_told(nan, given.nan, off.nan);
    warms = spread_if_told(warmup_steps, given.warmup_steps, off.warmup_steps);
    matures = spread_if_told(min_steps, given.min_steps, off.min_steps);
    expires = spread_if_told(max_steps, given.max_steps, off.max_steps);
    first = spread_if_told(initial_patience, given.initial_patience, off.initial_patience);
    targets = spread_if_told(stop_at, given.stop_at, off.stop_at);
    diverges = spread_if_told(diverge_at, given.diverge_at, off.diverge_at);
    spread(warms, warmup_start_factor, given.warmup_start_factor);
    bears = spread(first || keras || !lanes.one_bears, patience, given.patience);
    spread(bears, counting, given.counting);
    spread(!one_gate || targets || diverges || !stops_alike, mode, given.mode);
    spread(!one_gate, threshold, given.threshold);
    spread(!one_gate, threshold_mode, given.threshold_mode);
    spread(!one_gate, atol, given.atol);
    spread(state.total, accumulate, given.accumulate);
    spread(state.recent, window, given.window);
    spread(state.smooth, smoothing, given.smoothing);
    spread(state.at_min_steps, patience_at_min, given.patience_at_min);
    spread(state.judged, stop_patience, given.stop_patience);
    spread(state.judged, stop_mult, given.stop_mult);
    spread(!stops_alike, stop_threshold, given.stop_threshold);
    spread(!stops_alike, stop_threshold_mode, given.stop_threshold_mode);
    stop_gate = gate_of(given.mode.all, given.stop_threshold.all, given.stop_threshold_mode.all, 0);
  }

  bool one_gate, nans, warms, matures, expires, first, keras, bears, targets, diverges, stops_alike;
  Gate stop_gate{};
  Spread<std::uint8_t> nan, mode, threshold_mode, counting, stop_threshold_mode;
  Spread<std::int32_t> warmup_steps, min_steps, max_steps, initial_patience, patience, accumulate,
      window, patience_at_min, stop_patience;
  Spread<double> threshold, atol, warmup_start_factor, stop_at, diverge_at, smoothing,
      stop_threshold, stop_mult;
};

using Flags = std::int32_t[kPart];  // 1 or 0, or Outcome bits: as wide as the clock

/// A block of lanes in the middle of a step.
struct Block {
  std::int64_t begin;
  std::int64_t step;  ///< the batch's number of this step, from 1
  int count;
  alignas(64) Flags here;               ///< whether the lane is still to decide
  alignas(64) Flags marks;              ///< its Outcome bits
  alignas(64) Flags alone;              ///< whether it takes its step by itself, if `any_alone`
  alignas(64) Flags rare;               ///< scratch: whether a pass found something rare
  alignas(64) Flags young;              ///< step < min_steps, where any lane has that
  alignas(64) Flags warm;               ///< step <= warmup_steps, where any lane has that
  alignas(64) double filtered[kPart];   ///< what decides, where there are filters
  alignas(64) std::int64_t age[kPart];  ///< the lane's number of this step, where asked for
  bool aged;
  bool any_warm;
  bool any_alone;

  /// Calls `body(i)` for the lanes of which `flags` are set.
  template <class Body>
  void each_of(const Flags& flags, Body body) const noexcept {
    for (int i = 0; i < count; ++i) {
      if (flags[i]) body(i);
    }
  }
  PLATEAU_INLINE void number(const Lanes& lanes) noexcept {
    if (aged) return;
    const std::int64_t* __restrict born = lanes.state.born + begin;
    for (int i = 0; i < count; ++i) age[i] = step - born[i];
    aged = true;
  }
};

}  // namespace plateau
