// SPDX-License-Identifier: BSD-3-Clause
// The passes of block.hpp. What each lane does is told in lane.hpp, in the same order; a lane to
// which something rare happens (it is finished by this step, NaN cuts it) is handed over to the
// functions there.
#include "cpu/block.hpp"

#include <algorithm>
#include <cstdint>

#include "cpu/filters.hpp"
#include "cpu/parts.hpp"
#include "cpu/vector.hpp"
#include "plateau/lane.hpp"
#include "plateau/rule.hpp"
#include "plateau/step.hpp"

namespace plateau {
namespace {

/// Finishes the lanes that are flagged as rare, for a reason that `why(i)` gives.
template <class Why>
void finish_rare(const Lanes& lanes, const Block& block, Why why) noexcept {
  block.each_of(block.rare, [&](int i) { finish(lanes, block.begin + i, why(i)); });
}

/// here: the lanes that are active, not finished, and whose metric is not a NaN that is skipped.
/// Steps pass the others by.
template <class T>
PLATEAU_INLINE void find_here(const Lanes& lanes, const Parts& parts, const std::uint8_t* active,
                              const T* __restrict value, Block& block) noexcept {
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

/// By the lanes' ages: young and warm. alone: those whose NaN cuts or freezes them, that are used
/// up by this step, or are warm with several rates; they are here no more.
template <class T>
PLATEAU_INLINE void find_alone(const Lanes& lanes, const Parts& parts, const T* __restrict value,
                               Block& block) noexcept {
  const int count = block.count;
  const std::int64_t begin = block.begin;
  const bool groups_warm = parts.warms && lanes.offsets;
  const bool asks_age = parts.warms || parts.expires || parts.matures;
  std::int32_t any = 0, warm = 0;
  if (parts.nans || parts.expires || groups_warm) std::fill_n(block.alone, count, 0);
  if (asks_age) block.number(lanes);
  if (parts.nans) {
    const std::uint8_t* __restrict nan = parts.nan.at(begin);
    for (int i = 0; i < count; ++i) {
      block.alone[i] = block.here[i] & is_nan(value[i]) & (nan[i] != kNanBad);
      any |= block.alone[i];
    }
  }
  if (parts.matures) {
    const std::int32_t* __restrict from = parts.min_steps.at(begin);
    for (int i = 0; i < count; ++i) block.young[i] = block.age[i] < from[i];
  }
  if (parts.expires) {
    const std::int32_t* __restrict most = parts.max_steps.at(begin);
    for (int i = 0; i < count; ++i) {
      const std::int32_t last = block.here[i] & (most[i] != kNoLimit) & (block.age[i] >= most[i]);
      block.alone[i] |= last;
      any |= last;
    }
  }
  if (parts.warms) {
    const std::int32_t* __restrict until = parts.warmup_steps.at(begin);
    for (int i = 0; i < count; ++i) {
      block.warm[i] = block.here[i] & (block.age[i] <= until[i]);
      warm |= block.warm[i];
    }
  }
  if (groups_warm) {
    for (int i = 0; i < count; ++i) block.alone[i] |= block.warm[i];
    any |= warm;
  }
  block.any_alone = any != 0;
  block.any_warm = warm != 0 && !groups_warm;
  if (!any) return;
  for (int i = 0; i < count; ++i) block.here[i] &= !block.alone[i];
  if (!block.any_warm) return;
  for (int i = 0; i < count; ++i) block.warm[i] &= !block.alone[i];
}

/// Lanes that a value by itself finishes.
template <class T>
PLATEAU_INLINE void stop_by_values(const Lanes& lanes, const Parts& parts,
                                   const T* __restrict value, Block& block) noexcept {
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
template <class T, class GateOf>
PLATEAU_INLINE std::int32_t mark_better(const T* __restrict best, const T* __restrict value,
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

template <class T>
PLATEAU_INLINE bool improve(const Lanes& lanes, const Parts& parts, const T* __restrict value,
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
    best[i] = block.marks[i] ? value[i] : best[i];
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
template <class T, class GateOf>
PLATEAU_INLINE void judge(const Lanes& lanes, const Parts& parts, const T* __restrict value,
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

template <class T>
PLATEAU_INLINE void judge(const Lanes& lanes, const Parts& parts, const T* value,
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
  Flags& bears = block.rare;
  if (parts.first) {
    const std::int32_t* __restrict initial = parts.initial_patience.at(block.begin);
    const std::uint8_t* __restrict flags = lanes.state.flags + block.begin;
    for (int i = 0; i < block.count; ++i) {
      const bool is_first = (initial[i] >= 0) & !(flags[i] & kOnceFired);
      bears[i] = borne(is_first ? initial[i] : patience[i], counting[i]);
    }
  } else {
    for (int i = 0; i < block.count; ++i) bears[i] = borne(patience[i], counting[i]);
  }
  const auto bears_of = [&bears](int i) { return bears[i]; };
  if (!parts.keras) return advance(clock, torch, bears_of, block);
  const auto either = [=](int i, std::int32_t now, bool improved) {
    const std::int32_t keras = tick_keras(now, improved), other = tick(now, improved);
    return counting[i] == kKeras ? keras : other;
  };
  return advance(clock, either, bears_of, block);
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
template <class T>
void cut_fired(const Lanes& lanes, const T* value, Block& block, Stepped& done) noexcept {
  block.number(lanes);
  for (int i = 0; i < block.count; ++i) block.rare[i] = block.marks[i] & kFired;
  block.each_of(block.rare, [&](int i) { fetch_for_cut(lanes, block.begin + i); });
  block.each_of(block.rare, [&](int i) {
    const std::int64_t lane = block.begin + i;
    const int ask = (block.marks[i] & kImproved ? kAskImproved : 0) | kAskCut;
    block.marks[i] =
        complete_step<T>(lanes, lane, block.age[i], ask, static_cast<double>(value[i]));
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

/// Lanes that take their whole step by themselves.
template <class T>
void step_alone(const Lanes& lanes, const T* value, Block& block, Stepped& done) noexcept {
  block.each_of(block.alone, [&](int i) {
    const std::int64_t lane = block.begin + i;
    auto metric = static_cast<double>(value[i]);
    block.marks[i] = step_whole<T>(lanes, lane, block.step - lanes.state.born[lane], metric, done);
    if (lanes.has_filters()) block.filtered[i] = metric;
  });
}

/// The metrics of a block: in place where they are T and no filter changes them.
template <class T>
PLATEAU_INLINE const T* metrics_of(const Lanes& lanes, const Metrics& metrics, T* gathered,
                                   Block& block) noexcept {
  constexpr Dtype kRead = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
  if (metrics.dtype == kRead && metrics.stride == 1 && !lanes.has_filters()) {
    return static_cast<const T*>(metrics.data) + block.begin;
  }
  gather(metrics, block.begin, block.count, gathered);
  return gathered;
}

template <class T>
PLATEAU_INLINE void step_passes(const Lanes& lanes, const Parts& parts, const Metrics& metrics,
                                const std::uint8_t* active, Block& block, Stepped& done) noexcept {
  alignas(64) T gathered[kPart];
  const T* value = gathered;
  if constexpr (sizeof(T) == sizeof(double)) {
    value = metrics_of(lanes, metrics, block.filtered, block);
  } else {
    value = metrics_of(lanes, metrics, gathered, block);
  }
  block.aged = false;
  find_here(lanes, parts, active, value, block);
  find_alone(lanes, parts, value, block);
  if constexpr (sizeof(T) == sizeof(double)) filter(lanes, parts, block);
  if (parts.targets || parts.diverges) stop_by_values(lanes, parts, value, block);
  done.improved |= improve(lanes, parts, value, block);
  if (lanes.state.judged) judge(lanes, parts, value, block);
  if (block.any_warm) {
    for (int i = 0; i < block.count; ++i) block.here[i] &= !block.warm[i];
    publish_warm(lanes, parts, block);
    done.published = true;
  }
  if (lanes.state.at_min_steps) count_at_floor(lanes, parts, block);
  const std::int32_t any = advance(lanes, parts, block);
  if (any && parts.matures) {
    std::int32_t* __restrict clock = lanes.state.clock + block.begin;
    for (int i = 0; i < block.count; ++i) {
      const bool waits = block.here[i] & block.young[i];
      block.marks[i] &= waits ? ~kFired : ~0;
      clock[i] = waits ? held_back(clock[i]) : clock[i];
    }
  }
  if (any) cut_fired(lanes, value, block, done);
  if (block.any_alone) step_alone(lanes, value, block, done);
  std::uint8_t* __restrict outcome = lanes.state.outcome + block.begin;
  for (int i = 0; i < block.count; ++i) outcome[i] = static_cast<std::uint8_t>(block.marks[i]);
}

#define PLATEAU_STEP(name, T)                                                                    \
  PLATEAU_MULTIVERSION void name(const Lanes& lanes, const Parts& parts, const Metrics& metrics, \
                                 const std::uint8_t* active, Block& block,                       \
                                 Stepped& done) noexcept {                                       \
    step_passes<T>(lanes, parts, metrics, active, block, done);                                  \
  }
PLATEAU_STEP(step_f32, float)
PLATEAU_STEP(step_f64, double)
#undef PLATEAU_STEP

}  // namespace

bool has_passes(const Lanes& lanes) noexcept {
  const bool narrow = lanes.best_dtype == Dtype::kFloat32;
  return lanes.settings.rule.all == kPlateau && !lanes.state.noise &&
         !(narrow && lanes.has_filters());
}

void step_block(const Lanes& lanes, const Parts& parts, const Metrics& metrics,
                const std::uint8_t* active, Block& block, Stepped& done) noexcept {
  const auto step = lanes.best_dtype == Dtype::kFloat32 ? step_f32 : step_f64;
  step(lanes, parts, metrics, active, block, done);
}

}  // namespace plateau
