// SPDX-License-Identifier: BSD-3-Clause
// Cuts in memory: the same on every device.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/rule.hpp"
#include "plateau/types.hpp"

namespace plateau {

/// Lowers the rate of one group of a lane that fired. Returns whether it changed.
PLATEAU_HD inline bool cut_group(const Lanes& lanes, std::int64_t lane,
                                 std::int64_t group) noexcept {
  const Settings& settings = lanes.settings;
  const double old = current_rate(lanes.rate[group], lanes.published[group]);
  const double rate = cut(old, settings.factor[lane], settings.min_lr[group], settings.eps[lane]);
  if (!(rate < old)) return false;
  lanes.rate[group] = rate;
  lanes.published[group] = static_cast<float>(rate);
  return true;
}

/// The same for all groups of the lane, by one thread.
PLATEAU_HD inline bool cut_lane(const Lanes& lanes, std::int64_t lane) noexcept {
  const std::int64_t first = lanes.first_group(lane);
  const std::int64_t last = lanes.first_group(lane + 1);
  bool reduced = false;
  for (std::int64_t group = first; group < last; ++group) {
    reduced |= cut_group(lanes, lane, group);
  }
  return reduced;
}

}  // namespace plateau
