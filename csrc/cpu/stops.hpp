// SPDX-License-Identifier: BSD-3-Clause
// What finishes the lanes of a block, in passes: they look for those that are finished by this
// step, which are few, and hand them over to lane.hpp.
#pragma once

#include <cstdint>

#include "cpu/parts.hpp"
#include "cpu/passes.hpp"
#include "plateau/lane.hpp"

namespace plateau {

/// Whether any value of a lane that is here reaches its target, or passes its bound.
template <class T, class Of, class ModeOf>
PLATEAU_INLINE bool any_reaches(const T* __restrict value, const Block& block, Of target,
                                ModeOf mode) noexcept {
  std::int32_t any = 0;
  for (int i = 0; i < block.count; ++i) {
    const auto x = static_cast<double>(value[i]);
    any |= block.here[i] & is_finite(target(i)) & beats(x, target(i), mode(i) == kMax);
  }
  return any != 0;
}
template <class T, class Of, class ModeOf>
PLATEAU_INLINE bool any_diverges(const T* __restrict value, const Block& block, Of bound,
                                 ModeOf mode) noexcept {
  std::int32_t any = 0;
  for (int i = 0; i < block.count; ++i) {
    const auto x = static_cast<double>(value[i]);
    const bool beyond = !is_finite(x) | beats(bound(i), x, mode(i) == kMax);
    any |= block.here[i] & is_finite(bound(i)) & beyond;
  }
  return any != 0;
}

/// Lanes that a value by itself finishes. Those that it makes diverge decide no more.
template <class T>
PLATEAU_INLINE void stop_by_values(const Lanes& lanes, const Parts& parts,
                                   const T* __restrict value, Block& block) noexcept {
  const std::int64_t begin = block.begin;
  const Settings& settings = lanes.settings;
  const bool any = with(settings.mode, begin, [&](auto mode) PLATEAU_INLINED {
    bool found = false;
    if (parts.targets) {
      found |= with(settings.stop_at, begin, [&](auto target) PLATEAU_INLINED {
        return any_reaches(value, block, target, mode);
      });
    }
    if (parts.diverges) {
      found |= with(settings.diverge_at, begin, [&](auto bound) PLATEAU_INLINED {
        return any_diverges(value, block, bound, mode);
      });
    }
    return found;
  });
  if (!any) return;
  block.who = Block::kSome;
  block.each_of(block.here, [&](int i) {
    const auto x = static_cast<double>(value[i]);
    const bool maximize = settings.mode[begin + i] == kMax;
    // NaN that has another rule than to be bad does not get here
    const StopReason why = stop_by_value(settings, begin + i, x, maximize, true);
    if (why != kGoesOn) finish(lanes, begin + i, why);
    if (why == kByDivergence) block.here[i] = 0;
  });
}

/// One more value for stop_patience: rare[i] = whether it is better by `gate_of`. Returns whether
/// any is.
template <class T, class GateOf>
PLATEAU_INLINE std::int32_t find_better(const double* __restrict best, const T* __restrict value,
                                        GateOf gate_of, Block& block) noexcept {
  std::int32_t any = 0;
  for (int i = 0; i < block.count; ++i) {
    const Gate gate = gate_of(i);
    const double worst = gate.maximize ? -kInfinity : kInfinity;
    const double from = is_nan(best[i]) ? worst : best[i];
    const std::int32_t better = block.here[i] & improves(static_cast<double>(value[i]), from, gate);
    block.rare[i] = better;
    any |= better;
  }
  return any;
}

template <class T>
PLATEAU_INLINE std::int32_t find_better(const Lanes& lanes, const Parts& parts, const T* value,
                                        Block& block) noexcept {
  const double* best = lanes.state.stop_best + block.begin;
  if (parts.one_stop_gate) {
    return with_gate<true>(parts.stop_gate, [&](auto gate_of) PLATEAU_INLINED {
      return find_better(best, value, gate_of, block);
    });
  }
  const std::uint8_t* __restrict mode = parts.mode.at(block.begin);
  const double* __restrict threshold = parts.stop_threshold.at(block.begin);
  const std::uint8_t* __restrict relative = parts.stop_threshold_mode.at(block.begin);
  const auto gate_of_lane = [=](int i) { return gate_of(mode[i], threshold[i], relative[i], 0.0); };
  return find_better(best, value, gate_of_lane, block);
}

/// Whether any lane that is here bears no more; rare, who counts anew, becomes who does not.
template <class Mult, class Patience>
PLATEAU_INLINE std::int32_t find_out_of_patience(const Lanes& lanes, Mult mult, Patience patience,
                                                 Block& block) noexcept {
  const std::int64_t* __restrict judged = lanes.state.judged + block.begin;
  const std::int64_t* __restrict best_at = lanes.state.stop_best_at + block.begin;
  std::int32_t any = 0;
  for (int i = 0; i < block.count; ++i) {
    const double borne =
        mult(i) * static_cast<double>(best_at[i]) + static_cast<double>(patience(i));
    const std::int32_t over =
        block.here[i] & (block.rare[i] ^ 1) & (static_cast<double>(judged[i] + 1) > borne);
    block.rare[i] = over;
    any |= over;
  }
  return any;
}

/// The same with stop_mult 1, in integers, which are exact: these counts are below 2^53.
template <class Patience>
PLATEAU_INLINE std::int32_t find_out_of_patience(const Lanes& lanes, Patience patience,
                                                 Block& block) noexcept {
  const std::int64_t* __restrict judged = lanes.state.judged + block.begin;
  const std::int64_t* __restrict best_at = lanes.state.stop_best_at + block.begin;
  std::int32_t any = 0;
  for (int i = 0; i < block.count; ++i) {
    const bool over = judged[i] - best_at[i] >= patience(i);
    block.rare[i] = block.here[i] & (block.rare[i] ^ 1) & over;
    any |= block.rare[i];
  }
  return any;
}

template <class T>
PLATEAU_INLINE void judge(const Lanes& lanes, const Parts& parts, const T* __restrict value,
                          Block& block) noexcept {
  const int count = block.count;
  const Settings& settings = lanes.settings;
  double* __restrict best = lanes.state.stop_best + block.begin;
  std::int64_t* __restrict best_at = lanes.state.stop_best_at + block.begin;
  std::int64_t* __restrict judged = lanes.state.judged + block.begin;
  std::int32_t anew = find_better(lanes, parts, value, block);
  if (anew) {
    for (int i = 0; i < count; ++i) {
      best[i] = block.rare[i] ? static_cast<double>(value[i]) : best[i];
    }
  }
  if (block.any_warm) {
    for (int i = 0; i < count; ++i) block.rare[i] |= block.here[i] & block.warm[i];
    anew = 1;
  }
  for (int i = 0; i < count; ++i) judged[i] += block.here[i];
  if (anew) {
    for (int i = 0; i < count; ++i) best_at[i] = block.rare[i] ? judged[i] : best_at[i];
  }
  const bool once = !settings.stop_mult.each && settings.stop_mult.all == 1.0;
  std::int32_t any = with(settings.stop_patience, block.begin, [&](auto patience) PLATEAU_INLINED {
    if (once) return find_out_of_patience(lanes, patience, block);
    return with(settings.stop_mult, block.begin, [&](auto mult) PLATEAU_INLINED {
      return find_out_of_patience(lanes, mult, patience, block);
    });
  });
  if (!any) return;
  if (block.any_young) {
    for (int i = 0; i < count; ++i) block.rare[i] &= block.young[i] ^ 1;
  }
  block.each_of(block.rare, [&](int i) { finish(lanes, block.begin + i, kByPatience); });
}

/// Bad steps at the floor; before the clock is advanced, which says whether a lane is cooling, and
/// while marks say who improved.
PLATEAU_INLINE void count_at_floor(const Lanes& lanes, const Parts& parts, Block& block) noexcept {
  const std::int64_t begin = block.begin;
  const int count = block.count;
  const std::uint8_t* __restrict flags = lanes.state.flags + begin;
  std::int32_t* __restrict bad = lanes.state.at_min_steps + begin;
  std::uint8_t at_min = 0;
  for (int i = 0; i < count; ++i) at_min |= flags[i];
  std::int32_t counted = 0;
  for (int i = 0; i < count; ++i) counted |= bad[i];
  if (!(at_min & kAtMin) && !counted) return;
  const std::int32_t* __restrict clock = lanes.state.clock + begin;
  Flags& cool = block.rare;  // a clock below this is that of a lane which is cooling
  if (parts.keras) {
    const std::uint8_t* __restrict counting = parts.counting.at(begin);
    for (int i = 0; i < count; ++i) cool[i] = counting[i] == kKeras ? -1 : 0;
  } else {
    std::fill_n(cool, count, 0);
  }
  std::int32_t any = 0;
  with(lanes.settings.patience_at_min, begin, [&](auto most) PLATEAU_INLINED {
    for (int i = 0; i < count; ++i) {
      const std::int32_t stays = block.marks[i] ^ 1, floor = (flags[i] / kAtMin) & 1;
      const std::int32_t more = clock[i] >= cool[i] ? block.here[i] & stays & floor : 0;
      const std::int32_t now = bad[i] + more;
      bad[i] = (block.here[i] & block.marks[i]) != 0 ? 0 : now;
      cool[i] = now >= most(i) ? more : 0;
      any |= cool[i];
    }
  });
  if (any) block.each_of(cool, [&](int i) { finish(lanes, begin + i, kAtFloor); });
}

}  // namespace plateau
