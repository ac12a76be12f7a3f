// SPDX-License-Identifier: BSD-3-Clause
// WHAT A LANE THAT FIRES DOES, in memory, and the same on every device: cut its rates, set its
// clock back, count. Every loop and kernel ends here.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/lanes.hpp"
#include "plateau/rule.hpp"

namespace plateau {

/// One rate before and after a cut; they are equal where floor or eps stopped it.
struct Cut {
  double old;
  double rate;

  PLATEAU_HD bool lowered() const noexcept { return rate < old; }
  PLATEAU_HD bool raised() const noexcept { return rate > old; }
};

/// What a cut makes of a rate.
PLATEAU_HD inline Cut cut_of(double master, float published, const Cutting& by) noexcept {
  const double old = current_rate(master, published);
  return {old, cut(old, by.factor, by.min_lr, by.eps)};
}

/// Sets the rate of a group, as its master and as it is published.
PLATEAU_HD inline void write_rate(const Lanes& lanes, std::int64_t group, double rate) noexcept {
  lanes.state.rate[group] = rate;
  lanes.state.published[group] = static_cast<float>(rate);
}

/// Lowers the rate of one group of a lane that fired.
PLATEAU_HD inline Cut cut_group(const Lanes& lanes, std::int64_t lane,
                                std::int64_t group) noexcept {
  const Cut done =
      cut_of(lanes.state.rate[group], lanes.state.published[group], lanes.cutting_at(lane, group));
  if (done.lowered()) write_rate(lanes, group, done.rate);
  return done;
}

/// The same for all groups of the lane, by one thread. Returns whether any was lowered.
PLATEAU_HD inline bool cut_lane(const Lanes& lanes, std::int64_t lane) noexcept {
  const std::int64_t first = lanes.first_group(lane);
  const std::int64_t last = lanes.first_group(lane + 1);
  bool reduced = false;
  for (std::int64_t group = first; group < last; ++group) {
    reduced |= cut_group(lanes, lane, group).lowered();
  }
  return reduced;
}

/// Adds one; on a device without a wait for what it is added to.
PLATEAU_HD inline void count_up(std::int32_t& counter) noexcept {
#ifdef __CUDA_ARCH__
  atomicAdd(&counter, 1);
#else
  ++counter;
#endif
}

/// Counts a step in which a lane had a rate lowered. `step` is the batch's number of it, from 1.
PLATEAU_HD inline void count_cut(const Lanes& lanes, std::int64_t lane,
                                 std::int64_t step) noexcept {
  count_up(lanes.state.num_reductions[lane]);
  lanes.state.last_cut[lane] = step;
}

/// The end of firing, when the lane's rates are done: its clock, and if one of them was lowered,
/// its counts, by count_cut(). Returns Outcome bits.
PLATEAU_HD inline int end_fire(const Lanes& lanes, std::int64_t lane, std::int64_t step,
                               bool reduced, std::int32_t cooldown, std::uint8_t counting,
                               std::int32_t& clock) noexcept {
  clock = after_fire(clock, cooldown, reduced, counting);
  if (!reduced) return kFired;
  count_cut(lanes, lane, step);
  return kFired | kReduced;
}
PLATEAU_HD inline int end_fire(const Lanes& lanes, std::int64_t lane, std::int64_t step,
                               bool reduced, std::int32_t& clock) noexcept {
  const Settings& settings = lanes.settings;
  return end_fire(lanes, lane, step, reduced, settings.cooldown[lane], settings.counting[lane],
                  clock);
}

/// The same on the host for `count` neighbouring lanes with one rate each and the same settings, in
/// passes over elements of one width. `marks` hold kFired where a lane fires and become its Outcome
/// bits; reduced[i] is 1 where the rate was lowered, else 0. Returns how many were.
PLATEAU_INLINE std::int32_t end_fires(const Lanes& lanes, std::int64_t begin, int count,
                                      std::int64_t step, const std::int64_t* __restrict reduced,
                                      std::int32_t* __restrict marks) noexcept {
  const std::int32_t cooldown = lanes.settings.cooldown.all;
  const std::uint8_t counting = lanes.settings.counting.all;
  std::int32_t* __restrict clock = lanes.state.clock + begin;
  std::int32_t* __restrict num_reductions = lanes.state.num_reductions + begin;
  std::int64_t* __restrict last_cut = lanes.state.last_cut + begin;
  for (int i = 0; i < count; ++i) last_cut[i] = reduced[i] ? step : last_cut[i];
  for (int i = 0; i < count; ++i) marks[i] |= static_cast<std::int32_t>(reduced[i]) * kReduced;
  for (int i = 0; i < count; ++i) {
    const std::int32_t set_back = after_fire(clock[i], cooldown, marks[i] & kReduced, counting);
    clock[i] = (marks[i] & kFired) ? set_back : clock[i];
  }
  std::int32_t total = 0;
  for (int i = 0; i < count; ++i) {
    const std::int32_t lowered = (marks[i] & kReduced) / kReduced;
    num_reductions[i] += lowered;
    total += lowered;
  }
  return total;
}

}  // namespace plateau
