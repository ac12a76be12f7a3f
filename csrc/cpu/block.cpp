// SPDX-License-Identifier: BSD-3-Clause
// The passes of block.hpp, in the order of begin_step() in lane.hpp. A lane to which something rare
// happens (it is finished by this step, NaN cuts it) is handed over to the functions there.
#include "cpu/block.hpp"

#include <algorithm>
#include <cstdint>

#include "cpu/filters.hpp"
#include "cpu/here.hpp"
#include "cpu/parts.hpp"
#include "cpu/passes.hpp"
#include "cpu/stops.hpp"
#include "cpu/vector.hpp"
#include "plateau/lane.hpp"
#include "plateau/rule.hpp"
#include "plateau/step.hpp"

namespace plateau {
namespace {

/// Calls `body` with a function that tells whether lane i is still to decide: for the passes that
/// every step makes, in which looking it up would show.
template <class Body>
PLATEAU_INLINE std::int32_t with_here(const Block& block, Body body) noexcept {
  return block.who == Block::kAll ? body(All{}) : body(Each<std::int32_t>{block.here});
}

/// marks: who improved, with best. Returns whether anybody did.
template <class T>
PLATEAU_INLINE bool improve(const Lanes& lanes, const Parts& parts, const T* __restrict value,
                            Block& block) noexcept {
  T* __restrict best = static_cast<T*>(lanes.state.best) + block.begin;
  const std::int32_t any = with_here(block, [&](auto here) PLATEAU_INLINED {
    return parts.gates.with<true>(lanes, block.begin, [&](auto gate_of) PLATEAU_INLINED {
      return mark_improved(value, best, block.count, here, gate_of, block.marks);
    });
  });
  if (!any) return false;
  for (int i = 0; i < block.count; ++i) best[i] = block.marks[i] ? value[i] : best[i];
  if (lanes.state.best_step) {
    block.list_ages(lanes);
    std::int64_t* __restrict best_step = lanes.state.best_step + block.begin;
    for (int i = 0; i < block.count; ++i) {
      best_step[i] = block.marks[i] ? block.age[i] : best_step[i];
    }
  }
  return true;
}

/// What each lane bears: the patience, or `initial_patience` until it once fired. Returns whether
/// that is one number for all, which is `one` then; else they are in block.rare.
PLATEAU_INLINE bool find_bears(const Lanes& lanes, const Parts& parts, Block& block,
                               std::int32_t& one) noexcept {
  const int count = block.count;
  const Settings& settings = lanes.settings;
  one = lanes.bears;
  if (!parts.first && lanes.one_bears) return true;
  const std::int32_t* __restrict patience = parts.patience.at(block.begin);
  const std::uint8_t* __restrict counting = parts.counting.at(block.begin);
  if (!parts.first) {
    for (int i = 0; i < count; ++i) block.rare[i] = borne(patience[i], counting[i]);
    return false;
  }
  const std::uint8_t* __restrict flags = lanes.state.flags + block.begin;
  std::uint8_t any = 0, all = kOnceFired;
  for (int i = 0; i < count; ++i) any |= flags[i];
  for (int i = 0; i < count; ++i) all &= flags[i];
  if (lanes.one_bears && !settings.initial_patience.each && (all || !(any & kOnceFired))) {
    const std::int32_t initial = settings.initial_patience.all;
    one = borne(all || initial < 0 ? settings.patience.all : initial, settings.counting.all);
    return true;
  }
  const std::int32_t* __restrict initial = parts.initial_patience.at(block.begin);
  for (int i = 0; i < count; ++i) {
    const bool is_first = (initial[i] >= 0) & !(flags[i] & kOnceFired);
    block.rare[i] = borne(is_first ? initial[i] : patience[i], counting[i]);
  }
  return false;
}

/// The clocks; marks: who fires too. Returns whether anybody does.
PLATEAU_INLINE std::int32_t advance(const Lanes& lanes, const Parts& parts, Block& block) noexcept {
  std::int32_t* clock = lanes.state.clock + block.begin;
  const int count = block.count;
  std::int32_t one;
  const bool is_one = find_bears(lanes, parts, block, one);
  const std::int32_t any = with_here(block, [&](auto here) PLATEAU_INLINED {
    const Each<std::int32_t> each{block.rare};
    if (!parts.keras) {
      return is_one ? advance(clock, count, here, Tick{}, Same<std::int32_t>{one}, block.marks)
                    : advance(clock, count, here, Tick{}, each, block.marks);
    }
    if (is_one) std::fill_n(block.rare, count, one);
    if (!lanes.settings.counting.each) {
      return advance(clock, count, here, KerasTick{}, each, block.marks);
    }
    const std::uint8_t* __restrict counting = parts.counting.at(block.begin);
    const auto either = [=](int i, std::int32_t now, bool improved) {
      const std::int32_t keras = tick_keras(now, improved), other = tick(now, improved);
      return counting[i] == kKeras ? keras : other;
    };
    return advance(clock, count, here, either, each, block.marks);
  });
  if (!any || !block.any_young) return any;
  for (int i = 0; i < block.count; ++i) {
    const bool waits = block.here[i] & block.young[i];
    block.marks[i] &= waits ? ~kFired : ~0;
    clock[i] = waits ? held_back(clock[i]) : clock[i];
  }
  return any;
}

/// What is left of firing where no rate can be lowered; takes these lanes out of block.rare.
PLATEAU_INLINE void fire_in_vain(const Lanes& lanes, Block& block) noexcept {
  const Settings& settings = lanes.settings;
  std::int32_t* __restrict clock = lanes.state.clock + block.begin;
  with(settings.cooldown, block.begin, [&](auto cooldown) PLATEAU_INLINED {
    with(settings.counting, block.begin, [&](auto counting) PLATEAU_INLINED {
      for (int i = 0; i < block.count; ++i) {
        const std::int32_t set_back = after_fire(clock[i], cooldown(i), false, counting(i));
        clock[i] = (block.rare[i] & block.vain[i]) != 0 ? set_back : clock[i];
      }
    });
  });
  for (int i = 0; i < block.count; ++i) block.rare[i] &= ~block.vain[i];
}

/// Cuts the lanes that fired.
template <class T>
PLATEAU_INLINE void cut_fired(const Lanes& lanes, const T* value, Block& block,
                              Stepped& done) noexcept {
  for (int i = 0; i < block.count; ++i) block.rare[i] = block.marks[i] & kFired;
  if (block.alone_with_lanes) fire_in_vain(lanes, block);
  int listed[kPart + 1];
  const int found = block.list_of(block.rare, listed);
  for (int k = 0; k < found; ++k) fetch_for_cut(lanes, block.begin + listed[k]);
  for (int k = 0; k < found; ++k) {
    const int i = listed[k];
    const std::int64_t lane = block.begin + i;
    const int ask = (block.marks[i] & kImproved ? kAskImproved : 0) | kAskCut;
    block.marks[i] = complete_step<T>(lanes, lane, block.step - lanes.state.born[lane], ask,
                                      static_cast<double>(value[i]));
    done.reduced += (block.marks[i] & kReduced) != 0;
    block.vain[i] = flags_of(lanes, lane) & kAtMin ? kFired : 0;
  }
}

/// Publishes the rates of lanes in a warm-up, which have one each and decide no more.
PLATEAU_INLINE void publish_warm(const Lanes& lanes, Block& block) noexcept {
  const int count = block.count;
  const double* __restrict rate = lanes.state.rate + block.begin;
  float* __restrict published = lanes.state.published + block.begin;
  const auto publish = [&](auto factor_of) PLATEAU_INLINED {
    for (int i = 0; i < count; ++i) {
      const auto warm = static_cast<float>(rate[i] * factor_of(i));
      published[i] = block.warm[i] ? warm : published[i];
    }
  };
  const Settings& settings = lanes.settings;
  with(settings.warmup_start_factor, block.begin, [&](auto start) PLATEAU_INLINED {
    with(settings.warmup_steps, block.begin, [&](auto steps) PLATEAU_INLINED {
      if (block.one_age && !settings.warmup_steps.each && !settings.warmup_start_factor.each) {
        publish(Same<double>{warm_up(start(0), steps(0), block.first_age)});
        return;
      }
      block.list_ages(lanes);
      publish([&](int i) { return warm_up(start(i), steps(i), block.age[i]); });
    });
  });
  block.leave_out(block.warm);
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

/// What those do that decide in company.
template <class T>
PLATEAU_INLINE void decide(const Lanes& lanes, const Parts& parts, const T* value, Block& block,
                           Stepped& done) noexcept {
  if constexpr (sizeof(T) == sizeof(double)) {
    if (parts.filters && block.who != Block::kNobody) filter(lanes, block);
  }
  if (block.who == Block::kNobody) {
    std::fill_n(block.marks, block.count, 0);
  } else {
    if (parts.targets || parts.diverges) stop_by_values(lanes, parts, value, block);
    done.improved |= improve(lanes, parts, value, block);
    if (lanes.state.judged) judge(lanes, parts, value, block);
  }
  if (block.any_warm) {
    publish_warm(lanes, block);
    done.published = true;
  }
  if (block.who == Block::kNobody) return;
  if (lanes.state.at_min_steps) count_at_floor(lanes, parts, block);
  if (advance(lanes, parts, block)) cut_fired(lanes, value, block, done);
}

/// The metrics of a block: in place where they are T and no filter changes them.
template <class T>
PLATEAU_INLINE const T* metrics_of(const Lanes& lanes, const Metrics& metrics, T* gathered,
                                   Block& block) noexcept {
  constexpr Dtype kRead = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
  if (!metrics.data) return gathered;
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
  block.begin_step();
  find_here(lanes, parts, active, value, block);
  decide(lanes, parts, value, block, done);
  if (block.any_alone) step_alone(lanes, value, block, done);
  std::uint8_t* __restrict outcome = lanes.state.outcome + block.begin;
  const std::int32_t* __restrict marks = block.marks;
  const int count = block.count;  // kept from what a byte may alias
  for (int i = 0; i < count; ++i) outcome[i] = static_cast<std::uint8_t>(marks[i]);
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
