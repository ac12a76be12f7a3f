// SPDX-License-Identifier: BSD-3-Clause
// Steps of lanes with optional parts or a mask, in blocks that stay in the first-level cache and in
// passes over elements of one width, as step.cpp has it for plain lanes. What each lane does is
// told in lane.hpp, in the same order; a lane to which something rare happens (it is finished by
// this step, NaN cuts it) is handed over to the functions there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cpu/vector.hpp"
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/rule.hpp"
#include "plateau/step.hpp"

namespace plateau {

constexpr int kPart = 256;  // lanes that are taken together

/// A whole step of one lane, added to what the batch has done. Returns Outcome bits.
template <class T>
int step_whole(const Lanes& lanes, std::int64_t lane, std::int64_t step, double& metric,
               Stepped& done) noexcept {
  Told told;
  const int outcome = step_lane<T>(lanes, lane, step, metric, told);
  done.reduced += (outcome & kReduced) != 0;
  done.improved |= (outcome & kImproved) != 0;
  done.published |= (outcome & kRaised) || step <= lanes.settings.warmup_steps[lane];
  return outcome;
}

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

template <class S>
bool is_told(const Setting<S>& setting, S off) noexcept {
  return setting.each || setting.all != off;
}

/// What the lanes of a batch have, and the settings of it, spread out.
struct Parts {
  explicit Parts(const Lanes& lanes) noexcept {
    const Settings& given = lanes.settings;
    const auto spread = [&lanes](bool asked, auto& settings, const auto& setting) {
      if (asked) settings.fill(setting, lanes.n);
      return asked;
    };
    one_gate = lanes.one_gate;
    nans = spread(is_told<std::uint8_t>(given.nan, kNanBad), nan, given.nan);
    warms = spread(is_told(given.warmup_steps, 0), warmup_steps, given.warmup_steps);
    spread(warms, warmup_start_factor, given.warmup_start_factor);
    matures = spread(is_told(given.min_steps, 0), min_steps, given.min_steps);
    expires = spread(is_told(given.max_steps, kNoLimit), max_steps, given.max_steps);
    first = spread(is_told(given.initial_patience, kAsPatience), initial_patience,
                   given.initial_patience);
    keras = given.counting.each || given.counting.all == kKeras;
    bears = first || keras || !lanes.one_bears;
    spread(bears, patience, given.patience);
    spread(bears, counting, given.counting);
    targets = spread(is_told(given.stop_at, kInfinity), stop_at, given.stop_at);
    diverges = spread(is_told(given.diverge_at, kInfinity), diverge_at, given.diverge_at);
    spread(!one_gate || targets || diverges, mode, given.mode);
    spread(!one_gate, threshold, given.threshold);
    spread(!one_gate, threshold_mode, given.threshold_mode);
    spread(!one_gate, atol, given.atol);
    const State& state = lanes.state;
    spread(state.total, accumulate, given.accumulate);
    spread(state.recent, window, given.window);
    spread(state.smooth, smoothing, given.smoothing);
    spread(state.at_min_steps, patience_at_min, given.patience_at_min);
    if (!state.judged) return;
    stops_alike = !given.mode.each && !given.stop_threshold.each && !given.stop_threshold_mode.each;
    stop_gate = gate_of(given.mode.all, given.stop_threshold.all, given.stop_threshold_mode.all, 0);
    spread(one_gate && !stops_alike, mode, given.mode);
    spread(!stops_alike, stop_threshold, given.stop_threshold);
    spread(!stops_alike, stop_threshold_mode, given.stop_threshold_mode);
    stop_patience.fill(given.stop_patience, lanes.n);
    stop_mult.fill(given.stop_mult, lanes.n);
  }

  /// Whether the passes below know all that these lanes do.
  static bool know(const Lanes& lanes) noexcept {
    return lanes.settings.rule.all == kPlateau && !lanes.state.noise;
  }

  bool one_gate, nans, warms, matures, expires, first, keras, bears, targets, diverges;
  bool stops_alike = true;
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
  alignas(64) Flags rare;               ///< scratch: whether something rare happens to it
  alignas(64) Flags young;              ///< step < min_steps, where any lane has that
  alignas(64) Flags warm;               ///< step <= warmup_steps, where any lane has that
  alignas(64) std::int64_t age[kPart];  ///< the lane's number of this step, where asked for
  bool aged;
  bool any_warm;

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

/// Finishes the lanes that are flagged as rare, for a reason that `why(i)` gives.
template <class Why>
void finish_rare(const Lanes& lanes, const Block& block, Why why) noexcept {
  block.each_of(block.rare, [&](int i) {
    const StopReason reason = why(i);
    if (reason != kGoesOn) finish(lanes, block.begin + i, reason);
  });
}

/// here: the lanes that are active, not finished, and whose metric is not a NaN that is skipped.
/// Steps pass the others by.
template <class V>
PLATEAU_INLINE void find_here(const Lanes& lanes, const Parts& parts, const std::uint8_t* active,
                              const V* __restrict value, Block& block) noexcept {
  const int count = block.count;
  Flags& here = block.here;
  std::int32_t all = 1;
  if (active) {
    const std::uint8_t* __restrict mask = active + block.begin;
    for (int i = 0; i < count; ++i) here[i] = mask[i] != 0;
    for (int i = 0; i < count; ++i) all &= here[i];
  } else {
    std::fill_n(here, count, 1);
  }
  if (lanes.state.flags) {
    const std::uint8_t* __restrict flags = lanes.state.flags + block.begin;
    std::uint8_t any = 0;
    for (int i = 0; i < count; ++i) any |= flags[i];
    if (any & kFinished) {
      for (int i = 0; i < count; ++i) here[i] &= (flags[i] & kFinished) == 0;
      all = 0;
    }
  }
  if (parts.nans) {
    const std::uint8_t* __restrict nan = parts.nan.at(block.begin);
    std::int32_t any = 0;
    for (int i = 0; i < count; ++i) {
      const std::int32_t skipped = is_nan(value[i]) & (nan[i] == kNanSkip);
      here[i] &= !skipped;
      any |= skipped;
    }
    if (any) all = 0;
  }
  if (all) return;
  std::int64_t* __restrict born = lanes.state.born + block.begin;
  std::int64_t* __restrict last_cut = lanes.state.last_cut + block.begin;
  for (int i = 0; i < count; ++i) born[i] += here[i] ^ 1;
  for (int i = 0; i < count; ++i) last_cut[i] += here[i] ^ 1;
}

/// By the lanes' ages: young and warm. Lanes that are used up by this step are rare, as are those
/// whose NaN cuts or freezes them, and warm ones with several rates.
template <class V>
PLATEAU_INLINE std::int32_t find_rare(const Lanes& lanes, const Parts& parts,
                                      const V* __restrict value, Block& block) noexcept {
  const int count = block.count;
  const std::int64_t begin = block.begin;
  std::int32_t any = 0;
  if (parts.nans || parts.expires || (parts.warms && lanes.offsets)) {
    std::fill_n(block.rare, count, 0);
  }
  if (parts.nans) {
    const std::uint8_t* __restrict nan = parts.nan.at(begin);
    for (int i = 0; i < count; ++i) {
      block.rare[i] = block.here[i] & is_nan(value[i]) & (nan[i] != kNanBad);
      any |= block.rare[i];
    }
  }
  if (!parts.warms && !parts.expires && !parts.matures) return any;
  block.number(lanes);
  if (parts.matures) {
    const std::int32_t* __restrict from = parts.min_steps.at(begin);
    for (int i = 0; i < count; ++i) block.young[i] = block.age[i] < from[i];
  }
  if (parts.expires) {
    const std::int32_t* __restrict most = parts.max_steps.at(begin);
    for (int i = 0; i < count; ++i) {
      const std::int32_t last = block.here[i] & (most[i] != kNoLimit) & (block.age[i] >= most[i]);
      block.rare[i] |= last;
      any |= last;
    }
  }
  if (!parts.warms) return any;
  const std::int32_t* __restrict until = parts.warmup_steps.at(begin);
  std::int32_t warm = 0;
  for (int i = 0; i < count; ++i) {
    block.warm[i] = block.here[i] & (block.age[i] <= until[i]);
    warm |= block.warm[i];
  }
  block.any_warm = warm != 0;
  if (!lanes.offsets) return any;
  for (int i = 0; i < count; ++i) block.rare[i] |= block.warm[i];
  return any | warm;
}

/// The lanes that are rare take their whole step by themselves. `value` is written where it is one
/// that filters change.
template <class T, class V>
void step_rare(const Lanes& lanes, V* value, Block& block, Stepped& done) noexcept {
  block.each_of(block.rare, [&](int i) {
    const std::int64_t lane = block.begin + i;
    auto metric = static_cast<double>(value[i]);
    block.here[i] = 0;
    if (block.any_warm) block.warm[i] = 0;
    block.marks[i] = step_whole<T>(lanes, lane, block.step - lanes.state.born[lane], metric, done);
    if constexpr (!std::is_const_v<V>) value[i] = metric;
  });
}

PLATEAU_INLINE void accumulate(const Lanes& lanes, const Parts& parts, double* __restrict value,
                               Block& block) noexcept {
  const std::int32_t* __restrict most = parts.accumulate.at(block.begin);
  double* __restrict total = lanes.state.total + block.begin;
  std::int32_t* __restrict taken = lanes.state.taken + block.begin;
  for (int i = 0; i < block.count; ++i) {
    const bool counts = block.here[i] & (most[i] > 1);
    const double sum = total[i] + value[i];
    const std::int32_t number = taken[i] + 1;
    const bool full = number >= most[i];
    const double mean = sum / static_cast<double>(number);
    value[i] = counts & full ? mean : value[i];
    total[i] = counts ? (full ? 0.0 : sum) : total[i];
    taken[i] = counts ? (full ? 0 : number) : taken[i];
    block.here[i] &= !counts | full;
  }
}

/// Whether the values of all lanes of a block enter windows of one length, row by row.
PLATEAU_INLINE bool share_rows(const Lanes& lanes, const std::int32_t* __restrict window,
                               const double* __restrict value, const Block& block) noexcept {
  const std::int64_t* __restrict pushed = lanes.state.pushed + block.begin;
  std::int64_t differ = 0;
  for (int i = 0; i < block.count; ++i) differ |= pushed[i] ^ pushed[0];
  std::int32_t other = 0;
  for (int i = 0; i < block.count; ++i) {
    other |= (window[i] ^ window[0]) | !block.here[i] | is_nan(value[i]);
  }
  return !differ && !other && window[0] > 1;
}

PLATEAU_INLINE void average(const Lanes& lanes, const Parts& parts, double* __restrict value,
                            Block& block) noexcept {
  const int count = block.count;
  const std::int32_t* __restrict window = parts.window.at(block.begin);
  if (!share_rows(lanes, window, value, block)) {
    block.each_of(block.here, [&](int i) {
      if (window[i] <= 1 || is_nan(value[i])) return;
      value[i] = windowed(lanes, block.begin + i, window[i], value[i]);
    });
    return;
  }
  std::int64_t* __restrict pushed = lanes.state.pushed + block.begin;
  const std::int64_t last = pushed[0];
  const std::int64_t first = last + 1 < window[0] ? 0 : last + 1 - window[0];
  const auto row = [&](std::int64_t i) {
    return lanes.state.recent + (i % lanes.window_rows) * lanes.n + block.begin;
  };
  std::copy_n(value, count, row(last));
  std::fill_n(value, count, 0.0);
  for (std::int64_t at = first; at <= last; ++at) {
    const double* __restrict of_row = row(at);
    for (int i = 0; i < count; ++i) value[i] += of_row[i];
  }
  const auto size = static_cast<double>(last + 1 - first);
  for (int i = 0; i < count; ++i) value[i] /= size;
  for (int i = 0; i < count; ++i) ++pushed[i];
}

PLATEAU_INLINE void smooth(const Lanes& lanes, const Parts& parts, double* __restrict value,
                           Block& block) noexcept {
  const double* __restrict smoothing = parts.smoothing.at(block.begin);
  double* __restrict sums = lanes.state.smooth + block.begin;
  double* __restrict rests = lanes.state.smooth_rest + block.begin;
  for (int i = 0; i < block.count; ++i) {
    double sum = sums[i], rest = rests[i];
    const double mean = smoothed(value[i], smoothing[i], sum, rest);
    const bool counts = (block.here[i] != 0) & (smoothing[i] > 0.0) & is_finite(value[i]);
    sums[i] = counts ? sum : sums[i];
    rests[i] = counts ? rest : rests[i];
    value[i] = counts ? mean : value[i];
  }
}

/// Lanes that a value by itself finishes.
template <class V>
PLATEAU_INLINE void stop_by_values(const Lanes& lanes, const Parts& parts,
                                   const V* __restrict value, Block& block) noexcept {
  const int count = block.count;
  const std::uint8_t* __restrict mode = parts.mode.at(block.begin);
  std::int32_t any = 0;
  std::fill_n(block.rare, count, 0);
  if (parts.targets) {
    const double* __restrict target = parts.stop_at.at(block.begin);
    for (int i = 0; i < count; ++i) {
      const auto x = static_cast<double>(value[i]);
      block.rare[i] = block.here[i] & is_finite(target[i]) & beats(x, target[i], mode[i] == kMax);
      any |= block.rare[i];
    }
  }
  if (parts.diverges) {
    const double* __restrict bound = parts.diverge_at.at(block.begin);
    for (int i = 0; i < count; ++i) {
      const auto x = static_cast<double>(value[i]);
      const bool beyond = !is_finite(x) | beats(bound[i], x, mode[i] == kMax);
      block.rare[i] |= block.here[i] & is_finite(bound[i]) & beyond;
      any |= block.rare[i];
    }
  }
  if (!any) return;
  finish_rare(lanes, block, [&](int i) {
    const std::int64_t lane = block.begin + i;
    const auto x = static_cast<double>(value[i]);
    // NaN that has another rule than to be bad does not get here
    const StopReason why = stop_by_value(lanes.settings, lane, x, mode[i] == kMax, true);
    if (why == kByDivergence) block.here[i] = 0;
    return why;
  });
}

/// marks: which lanes improved, by `gate_of(i)`. Returns whether any did.
template <class T, class V, class GateOf>
PLATEAU_INLINE std::int32_t mark_better(const T* __restrict best, const V* __restrict value,
                                        GateOf gate_of, Block& block) noexcept {
  std::int32_t any = 0;
  for (int i = 0; i < block.count; ++i) {
    const std::int32_t mark = block.here[i] & improves(static_cast<double>(value[i]),
                                                       static_cast<double>(best[i]), gate_of(i));
    block.marks[i] = mark;
    any |= mark;
  }
  return any;
}

template <class T, class V>
PLATEAU_INLINE bool improve(const Lanes& lanes, const Parts& parts, const V* __restrict value,
                            Block& block) noexcept {
  const std::int64_t begin = block.begin;
  T* __restrict best = static_cast<T*>(lanes.state.best) + begin;
  std::int32_t any = 0;
  const Gate gate = lanes.gate;
  if (parts.one_gate && gate.safe) {
    any = mark_better(best, value, [=](int) { return gate; }, block);
  } else if (parts.one_gate && gate.maximize) {
    const Gate high{gate.scale, gate.shift, true, false};
    any = mark_better(best, value, [=](int) { return high; }, block);
  } else if (parts.one_gate) {
    const Gate low{gate.scale, gate.shift, false, false};
    any = mark_better(best, value, [=](int) { return low; }, block);
  } else {
    const double* __restrict threshold = parts.threshold.at(begin);
    const double* __restrict atol = parts.atol.at(begin);
    const std::uint8_t* __restrict mode = parts.mode.at(begin);
    const std::uint8_t* __restrict threshold_mode = parts.threshold_mode.at(begin);
    any = mark_better(
        best, value,
        [=](int i) { return gate_of(mode[i], threshold[i], threshold_mode[i], atol[i]); }, block);
  }
  if (!any) return false;
  for (int i = 0; i < block.count; ++i) {
    best[i] = block.marks[i] ? static_cast<T>(value[i]) : best[i];
  }
  if (lanes.state.best_step) {
    block.number(lanes);
    std::int64_t* __restrict best_step = lanes.state.best_step + begin;
    for (int i = 0; i < block.count; ++i) {
      best_step[i] = block.marks[i] ? block.age[i] : best_step[i];
    }
  }
  return true;
}

/// One more value for stop_patience.
template <class V, class GateOf>
PLATEAU_INLINE void judge(const Lanes& lanes, const Parts& parts, const V* __restrict value,
                          GateOf gate_of, Block& block) noexcept {
  const std::int64_t begin = block.begin;
  double* __restrict best = lanes.state.stop_best + begin;
  std::int64_t* __restrict best_at = lanes.state.stop_best_at + begin;
  std::int64_t* __restrict judged = lanes.state.judged + begin;
  const double* __restrict mult = parts.stop_mult.at(begin);
  const std::int32_t* __restrict patience = parts.stop_patience.at(begin);
  for (int i = 0; i < block.count; ++i) {
    const Gate gate = gate_of(i);
    const auto x = static_cast<double>(value[i]);
    const double worst = gate.maximize ? -kInfinity : kInfinity;
    const double from = is_nan(best[i]) ? worst : best[i];
    block.rare[i] = block.here[i] & improves(x, from, gate);
  }
  for (int i = 0; i < block.count; ++i) {
    best[i] = block.rare[i] != 0 ? static_cast<double>(value[i]) : best[i];
  }
  if (block.any_warm) {
    for (int i = 0; i < block.count; ++i) block.rare[i] |= block.here[i] & block.warm[i];
  }
  for (int i = 0; i < block.count; ++i) judged[i] += block.here[i];
  for (int i = 0; i < block.count; ++i) best_at[i] = block.rare[i] ? judged[i] : best_at[i];
  std::int32_t any = 0;
  for (int i = 0; i < block.count; ++i) {
    const double borne =
        mult[i] * static_cast<double>(best_at[i]) + static_cast<double>(patience[i]);
    const bool over = static_cast<double>(judged[i] + 1) > borne;
    block.rare[i] = block.here[i] & !block.rare[i] & over;
  }
  if (parts.matures) {
    for (int i = 0; i < block.count; ++i) block.rare[i] &= !block.young[i];
  }
  for (int i = 0; i < block.count; ++i) any |= block.rare[i];
  if (any) finish_rare(lanes, block, [](int) { return kByPatience; });
}

template <class V>
PLATEAU_INLINE void judge(const Lanes& lanes, const Parts& parts, const V* value,
                          Block& block) noexcept {
  if (parts.stops_alike) {
    const Gate gate = parts.stop_gate;
    judge(lanes, parts, value, [=](int) { return gate; }, block);
    return;
  }
  const std::uint8_t* __restrict mode = parts.mode.at(block.begin);
  const double* __restrict threshold = parts.stop_threshold.at(block.begin);
  const std::uint8_t* __restrict relative = parts.stop_threshold_mode.at(block.begin);
  judge(
      lanes, parts, value, [=](int i) { return gate_of(mode[i], threshold[i], relative[i], 0.0); },
      block);
}

/// clock = tick(clock), marks |= kFired where the lane fires; until then they say who improved.
/// Returns whether any fires.
template <class TickOf, class BearsOf>
PLATEAU_INLINE std::int32_t advance(std::int32_t* __restrict clock, TickOf tick_of,
                                    BearsOf bears_of, Block& block) noexcept {
  std::int32_t any = 0;
  for (int i = 0; i < block.count; ++i) {
    const std::int32_t next = tick_of(i, clock[i], block.marks[i] != 0);
    const std::int32_t fired = fires(next, bears_of(i)) ? block.here[i] * kFired : 0;
    clock[i] = block.here[i] != 0 ? next : clock[i];
    block.marks[i] |= fired;
    any |= fired;
  }
  return any;
}

PLATEAU_INLINE std::int32_t advance(const Lanes& lanes, const Parts& parts, Block& block) noexcept {
  std::int32_t* clock = lanes.state.clock + block.begin;
  const auto torch = [](int, std::int32_t now, bool improved) { return tick(now, improved); };
  if (!parts.bears) {
    const std::int32_t all = lanes.bears;
    return advance(clock, torch, [=](int) { return all; }, block);
  }
  const std::int32_t* __restrict patience = parts.patience.at(block.begin);
  const std::uint8_t* __restrict counting = parts.counting.at(block.begin);
  if (parts.first) {
    const std::int32_t* __restrict initial = parts.initial_patience.at(block.begin);
    const std::uint8_t* __restrict flags = lanes.state.flags + block.begin;
    for (int i = 0; i < block.count; ++i) {
      const bool is_first = (initial[i] >= 0) & !(flags[i] & kOnceFired);
      block.rare[i] = borne(is_first ? initial[i] : patience[i], counting[i]);
    }
  } else {
    for (int i = 0; i < block.count; ++i) block.rare[i] = borne(patience[i], counting[i]);
  }
  const auto bears = [&block](int i) { return block.rare[i]; };
  if (!parts.keras) return advance(clock, torch, bears, block);
  const auto either = [=](int i, std::int32_t now, bool improved) {
    const std::int32_t keras = tick_keras(now, improved), other = tick(now, improved);
    return counting[i] == kKeras ? keras : other;
  };
  return advance(clock, either, bears, block);
}

/// Bad steps at the floor; before the clock is advanced, which says whether a lane is cooling, and
/// while marks say who improved.
PLATEAU_INLINE void count_at_floor(const Lanes& lanes, const Parts& parts, Block& block) noexcept {
  const std::int64_t begin = block.begin;
  const std::uint8_t* __restrict flags = lanes.state.flags + begin;
  std::int32_t* __restrict bad = lanes.state.at_min_steps + begin;
  std::uint8_t at_min = 0;
  for (int i = 0; i < block.count; ++i) at_min |= flags[i];
  std::int32_t counted = 0;
  for (int i = 0; i < block.count; ++i) counted |= bad[i];
  if (!(at_min & kAtMin) && !counted) return;
  const std::int32_t* __restrict clock = lanes.state.clock + begin;
  const std::int32_t* __restrict most = parts.patience_at_min.at(begin);
  Flags& cool = block.rare;  // a clock below this is that of a lane which is cooling
  if (parts.keras) {
    const std::uint8_t* __restrict counting = parts.counting.at(begin);
    for (int i = 0; i < block.count; ++i) cool[i] = counting[i] == kKeras ? -1 : 0;
  } else {
    std::fill_n(cool, block.count, 0);
  }
  std::int32_t any = 0;
  for (int i = 0; i < block.count; ++i) {
    const std::int32_t stays = block.marks[i] ^ 1, floor = (flags[i] / kAtMin) & 1;
    const std::int32_t more = clock[i] >= cool[i] ? block.here[i] & stays & floor : 0;
    const std::int32_t now = bad[i] + more;
    bad[i] = (block.here[i] & block.marks[i]) != 0 ? 0 : now;
    cool[i] = now >= most[i] ? more : 0;
    any |= cool[i];
  }
  if (any) finish_rare(lanes, block, [](int) { return kAtFloor; });
}

/// Cuts the lanes that fired.
template <class T, class V>
void cut_fired(const Lanes& lanes, const V* value, Block& block, Stepped& done) noexcept {
  block.number(lanes);
  for (int i = 0; i < block.count; ++i) block.rare[i] = block.marks[i] & kFired;
#if defined(__GNUC__)
  block.each_of(block.rare, [&](int i) {
    const std::int64_t lane = block.begin + i, group = lanes.first_group(lane);
    __builtin_prefetch(lanes.state.rate + group, 1);
    __builtin_prefetch(lanes.state.published + group, 1);
    __builtin_prefetch(lanes.state.num_reductions + lane, 1);
    __builtin_prefetch(lanes.state.last_cut + lane, 1);
  });
#endif
  block.each_of(block.rare, [&](int i) {
    const std::int64_t lane = block.begin + i;
    const int ask = (block.marks[i] & kImproved ? kAskImproved : 0) | kAskCut;
    block.marks[i] = finish_step<T>(lanes, lane, block.age[i], ask, static_cast<double>(value[i]));
    done.reduced += (block.marks[i] & kReduced) != 0;
  });
}

/// Publishes the rates of lanes in a warm-up, which have one each.
PLATEAU_INLINE void publish_warm(const Lanes& lanes, const Parts& parts, Block& block) noexcept {
  const double* __restrict rate = lanes.state.rate + block.begin;
  float* __restrict published = lanes.state.published + block.begin;
  const std::int32_t* __restrict steps = parts.warmup_steps.at(block.begin);
  const double* __restrict start = parts.warmup_start_factor.at(block.begin);
  for (int i = 0; i < block.count; ++i) {
    const auto warm = static_cast<float>(rate[i] * warm_up(start[i], steps[i], block.age[i]));
    published[i] = block.warm[i] ? warm : published[i];
  }
}

/// A step of a block. `value`: the metrics, which filters change, where there are some; constant
/// otherwise. Outcomes are left in block.marks.
template <class T, class V>
PLATEAU_INLINE void step_block(const Lanes& lanes, const Parts& parts, const std::uint8_t* active,
                               V* value, Block& block, Stepped& done) noexcept {
  block.aged = block.any_warm = false;
  std::fill_n(block.marks, block.count, 0);
  find_here(lanes, parts, active, value, block);
  const std::int32_t any_rare = find_rare(lanes, parts, value, block);
  alignas(64) Flags rare_marks;
  alignas(64) Flags was_rare;
  if (any_rare) {
    step_rare<T>(lanes, value, block, done);
    std::copy_n(block.rare, block.count, was_rare);
    std::copy_n(block.marks, block.count, rare_marks);
  }
  if constexpr (!std::is_const_v<V>) {
    if (lanes.state.total) accumulate(lanes, parts, value, block);
    if (lanes.state.recent) average(lanes, parts, value, block);
    if (lanes.state.smooth) smooth(lanes, parts, value, block);
  }
  if (parts.targets || parts.diverges) stop_by_values(lanes, parts, value, block);
  done.improved |= improve<T>(lanes, parts, value, block);
  if (lanes.state.judged) judge(lanes, parts, value, block);
  if (block.any_warm) {
    for (int i = 0; i < block.count; ++i) block.here[i] &= !block.warm[i];
    if (!lanes.offsets) publish_warm(lanes, parts, block);
    done.published = true;
  }
  if (lanes.state.at_min_steps) count_at_floor(lanes, parts, block);
  std::int32_t any = advance(lanes, parts, block);
  if (any && parts.matures) {
    std::int32_t* __restrict clock = lanes.state.clock + block.begin;
    for (int i = 0; i < block.count; ++i) {
      const bool waits = block.here[i] & block.young[i];
      block.marks[i] &= waits ? ~kFired : ~0;
      clock[i] = waits ? held_back(clock[i]) : clock[i];
    }
  }
  if (any) cut_fired<T>(lanes, value, block, done);
  if (any_rare) {
    for (int i = 0; i < block.count; ++i) {
      block.marks[i] = was_rare[i] ? rare_marks[i] : block.marks[i];
    }
  }
}

}  // namespace plateau
