// SPDX-License-Identifier: BSD-3-Clause
// Who of a block takes part in a step: whom it passes by, who takes it alone, who is young or warm.
// Most blocks are taken whole, and are asked no more than that.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cpu/parts.hpp"
#include "cpu/passes.hpp"
#include "plateau/lane.hpp"

namespace plateau {

template <class T>
PLATEAU_INLINE bool any_nan(const T* __restrict value, int count) noexcept {
  using Mark = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;  // as wide as T
  Mark any = 0;
  for (int i = 0; i < count; ++i) any |= value[i] != value[i] ? Mark{1} : Mark{0};
  return any != 0;
}

/// Leaves those out that a step passes by: lanes that are not active, or finished, or whose metric
/// is a NaN that is skipped. Returns whether there is any NaN to which a rule applies.
template <class T>
PLATEAU_INLINE bool pass_by(const Lanes& lanes, const Parts& parts, const std::uint8_t* active,
                            const T* __restrict value, Block& block) noexcept {
  const int count = block.count;
  const std::int64_t begin = block.begin;
  std::uint8_t every = 1, flagged = 0;
  if (active) {
    const std::uint8_t* __restrict mask = active + begin;
    for (int i = 0; i < count; ++i) every &= mask[i] != 0;
  }
  if (lanes.state.flags) {
    const std::uint8_t* __restrict flags = lanes.state.flags + begin;
    for (int i = 0; i < count; ++i) flagged |= flags[i];
  }
  const bool nan = parts.nans && any_nan(value, count);
  if (every && !(flagged & kFinished) && !nan) return false;
  Flags& passed = block.rare;
  std::fill_n(passed, count, 0);
  if (!every) {
    const std::uint8_t* __restrict mask = active + begin;
    for (int i = 0; i < count; ++i) passed[i] = mask[i] == 0;
  }
  if (flagged & kFinished) {
    const std::uint8_t* __restrict flags = lanes.state.flags + begin;
    for (int i = 0; i < count; ++i) passed[i] |= flags[i] & kFinished;
  }
  if (nan) {
    with(lanes.settings.nan, begin, [&](auto rule) PLATEAU_INLINED {
      for (int i = 0; i < count; ++i) passed[i] |= is_nan(value[i]) & (rule(i) == kNanSkip);
    });
  }
  std::int64_t* __restrict born = lanes.state.born + begin;
  std::int64_t* __restrict last_cut = lanes.state.last_cut + begin;
  for (int i = 0; i < count; ++i) born[i] += passed[i];
  for (int i = 0; i < count; ++i) last_cut[i] += passed[i];
  block.leave_out(passed);
  return nan;
}

/// young: who may not be cut yet.
PLATEAU_INLINE void find_young(const Lanes& lanes, Block& block) noexcept {
  const Setting<std::int32_t>& from = lanes.settings.min_steps;
  if (block.one_age && !from.each) {
    block.any_young = block.first_age < from.all;
    if (block.any_young) std::fill_n(block.young, block.count, 1);
    return;
  }
  block.list_ages(lanes);
  block.any_young = true;
  with(from, block.begin, [&](auto steps) PLATEAU_INLINED {
    for (int i = 0; i < block.count; ++i) block.young[i] = block.age[i] < steps(i);
  });
}

/// warm: for whom metrics count for best alone.
PLATEAU_INLINE void find_warm(const Lanes& lanes, Block& block) noexcept {
  const Setting<std::int32_t>& until = lanes.settings.warmup_steps;
  if (block.one_age && !until.each) {
    block.any_warm = block.first_age <= until.all;
    if (!block.any_warm) return;
    std::copy_n(block.here, block.count, block.warm);
    return;
  }
  block.list_ages(lanes);
  std::int32_t any = 0;
  with(until, block.begin, [&](auto steps) PLATEAU_INLINED {
    for (int i = 0; i < block.count; ++i) {
      block.warm[i] = block.here[i] & (block.age[i] <= steps(i));
      any |= block.warm[i];
    }
  });
  block.any_warm = any != 0;
}

/// alone: whose NaN cuts or freezes them, who is used up by this step, or warm with several rates.
template <class T>
PLATEAU_INLINE void find_alone(const Lanes& lanes, const Parts& parts, bool nan,
                               const T* __restrict value, Block& block) noexcept {
  const int count = block.count;
  const Setting<std::int32_t>& most = lanes.settings.max_steps;
  const bool expires =
      parts.expires && !(block.one_age && !most.each && block.first_age < most.all);
  const bool warm = block.any_warm && lanes.offsets;
  if (!nan && !expires && !warm) return;
  Flags& alone = block.alone;
  std::fill_n(alone, count, 0);
  if (nan) {
    with(lanes.settings.nan, block.begin, [&](auto rule) PLATEAU_INLINED {
      for (int i = 0; i < count; ++i) {
        alone[i] = block.here[i] & is_nan(value[i]) & (rule(i) != kNanBad);
      }
    });
  }
  if (expires) {
    block.list_ages(lanes);
    with(most, block.begin, [&](auto steps) PLATEAU_INLINED {
      for (int i = 0; i < count; ++i) {
        alone[i] |= block.here[i] & (steps(i) != kNoLimit) & (block.age[i] >= steps(i));
      }
    });
  }
  if (warm) {
    for (int i = 0; i < count; ++i) alone[i] |= block.warm[i];
    block.any_warm = false;
  }
  std::int32_t any = 0;
  for (int i = 0; i < count; ++i) any |= alone[i];
  if (!any) return;
  block.any_alone = true;
  block.leave_out(alone);
  if (!block.any_warm) return;
  for (int i = 0; i < count; ++i) block.warm[i] &= alone[i] ^ 1;
}

template <class T>
PLATEAU_INLINE void find_here(const Lanes& lanes, const Parts& parts, const std::uint8_t* active,
                              const T* value, Block& block) noexcept {
  const bool nan = pass_by(lanes, parts, active, value, block);
  if (block.who == Block::kNobody) return;
  if (parts.warms || parts.expires || parts.matures) block.number(lanes);
  if (parts.matures) find_young(lanes, block);
  if (parts.warms) find_warm(lanes, block);
  find_alone(lanes, parts, nan, value, block);
}

}  // namespace plateau
