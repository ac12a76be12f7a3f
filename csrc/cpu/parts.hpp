// SPDX-License-Identifier: BSD-3-Clause
// What optional parts the lanes of a batch have, and a block of such lanes in the middle of a step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/passes.hpp"
#include "plateau/lanes.hpp"
#include "plateau/rule.hpp"

namespace plateau {

constexpr int kPart = 256;  // lanes that are taken together: they have more arrays than plain ones

/// What the lanes of a batch have. Settings that loops read in company are spread out.
struct Parts {
  explicit Parts(const Lanes& lanes) noexcept : gates(lanes) {
    const Settings& given = lanes.settings;
    const Settings off;  // what each is unless told
    const State& state = lanes.state;
    const auto told = [](const auto& setting, const auto& unless) {
      return setting.each || setting.all != unless.all;
    };
    const auto spread = [&lanes](bool asked, auto& settings, const auto& setting) {
      if (asked) settings.fill(setting, lanes.n);
    };
    filters = lanes.has_filters();
    keras = given.counting.each || given.counting.all == kKeras;
    nans = told(given.nan, off.nan);
    warms = told(given.warmup_steps, off.warmup_steps);
    matures = told(given.min_steps, off.min_steps);
    expires = told(given.max_steps, off.max_steps);
    first = told(given.initial_patience, off.initial_patience);
    targets = told(given.stop_at, off.stop_at);
    diverges = told(given.diverge_at, off.diverge_at);
    one_stop_gate =
        !given.mode.each && !given.stop_threshold.each && !given.stop_threshold_mode.each;
    stop_gate = gate_of(given.mode.all, given.stop_threshold.all, given.stop_threshold_mode.all, 0);
    spread(first || !lanes.one_bears, patience, given.patience);
    spread(first, initial_patience, given.initial_patience);
    spread(first || keras || !lanes.one_bears, counting, given.counting);
    spread(state.judged && !one_stop_gate, mode, given.mode);
    spread(state.judged && !one_stop_gate, stop_threshold, given.stop_threshold);
    spread(state.judged && !one_stop_gate, stop_threshold_mode, given.stop_threshold_mode);
  }

  Gates gates;
  bool filters;  ///< whether values still have to pass them
  bool nans, warms, matures, expires, first, keras, targets, diverges, one_stop_gate;
  Gate stop_gate{};
  Spread<std::uint8_t, kPart> mode, counting, stop_threshold_mode;
  Spread<std::int32_t, kPart> patience, initial_patience;
  Spread<double, kPart> stop_threshold;
};

using Flags = std::int32_t[kPart];  // 1 or 0, or Outcome bits: as wide as the clock

/// A block of lanes in the middle of a step. Most blocks of most steps are taken whole: `who` says
/// so, and `here` is all ones then.
struct Block {
  std::int64_t begin;
  std::int64_t step;  ///< the batch's number of this step, from 1
  int count;

  enum Who { kNobody, kSome, kAll } who = kSome;
  bool any_alone, any_young, any_warm, aged, one_age;
  bool alone_with_lanes = false;        ///< nobody else moves rates or settings between its steps
  std::int64_t first_age;               ///< the first lane's number of this step, and if `one_age`,
                                        ///< everybody's; after number()
  alignas(64) Flags here;               ///< whether the lane is still to decide
  alignas(64) Flags marks;              ///< its Outcome bits
  alignas(64) Flags alone;              ///< whether it takes its step by itself, if `any_alone`
  alignas(64) Flags rare;               ///< scratch: whether a pass found something rare
  alignas(64) Flags young;              ///< step < min_steps, if `any_young`
  alignas(64) Flags warm;               ///< step <= warmup_steps, if `any_warm`
  alignas(64) Flags vain = {};          ///< whether a cut was in vain, so will all be that follow
  alignas(64) double filtered[kPart];   ///< what decides, where there are filters
  alignas(64) std::int64_t age[kPart];  ///< the lane's number of this step, after list_ages()

  void begin_step() noexcept {
    any_alone = any_young = any_warm = aged = false;
    first_age = kUnknown;
    if (who != kAll) std::fill_n(here, kPart, 1);
    who = kAll;
  }

  /// Takes the flagged lanes out.
  PLATEAU_INLINE void leave_out(const Flags& flags) noexcept {
    who = kSome;
    std::int32_t any = 0;
    for (int i = 0; i < count; ++i) {
      here[i] &= flags[i] ^ 1;
      any |= here[i];
    }
    if (!any) who = kNobody;
  }

  /// Lists the lanes of which `flags` are set, which are few. Returns how many.
  PLATEAU_INLINE int list_of(const Flags& flags, int* __restrict lanes) const noexcept {
    constexpr int kScan = 8;  // lanes that are passed over together
    alignas(64) std::uint8_t set[kPart];
    for (int i = 0; i < count; ++i) set[i] = flags[i] != 0;
    int found = 0;
    for (int from = 0; from < count; from += kScan) {
      const int width = std::min(kScan, count - from);
      std::uint64_t eight = 0;
      std::memcpy(&eight, set + from, static_cast<std::size_t>(width));
      for (int i = from; eight && i < from + width; ++i) {
        lanes[found] = i;
        found += set[i];
      }
    }
    return found;
  }

  /// Calls `body(i)` for them.
  template <class Body>
  PLATEAU_INLINE void each_of(const Flags& flags, Body body) const noexcept {
    int lanes[kPart + 1];
    const int found = list_of(flags, lanes);
    for (int k = 0; k < found; ++k) body(lanes[k]);
  }

  /// Finds out whether all lanes have taken as many steps, as they have where none was passed by.
  PLATEAU_INLINE void number(const Lanes& lanes) noexcept {
    if (first_age != kUnknown) return;
    const std::int64_t* __restrict born = lanes.state.born + begin;
    std::int64_t differ = 0;
    for (int i = 0; i < count; ++i) differ |= born[i] ^ born[0];
    one_age = differ == 0;
    first_age = step - born[0];
  }

  PLATEAU_INLINE void list_ages(const Lanes& lanes) noexcept {
    if (aged) return;
    const std::int64_t* __restrict born = lanes.state.born + begin;
    for (int i = 0; i < count; ++i) age[i] = step - born[i];
    aged = true;
  }

 private:
  static constexpr std::int64_t kUnknown = INT64_MIN;  // no lane has this age
};

}  // namespace plateau
