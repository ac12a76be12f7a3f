// SPDX-License-Identifier: BSD-3-Clause
// The averages that a metric goes through before it decides.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/lanes.hpp"
#include "plateau/rule.hpp"

namespace plateau {

/// The mean of the last `window` values, the new one included, added up from the oldest on; for a
/// greedy lane kept as a sum that the newest enters and the oldest leaves, and only added up anew
/// after an infinite value.
PLATEAU_HD inline double windowed(const Lanes& lanes, std::int64_t lane, std::int32_t window,
                                  double value) noexcept {
  const auto row = [&](std::int64_t i) -> double& {
    return lanes.state.recent[(i % lanes.window_rows) * lanes.n + lane];
  };
  const std::int64_t last = lanes.state.pushed[lane]++;
  const std::int64_t first = last + 1 < window ? 0 : last + 1 - window;
  double sum = kNone;
  if (lanes.settings.rule.all == kGreedy) {
    sum = lanes.state.recent_sum[lane] + value;
    if (first > 0) sum -= row(first - 1);  // in the row of the new one, where there are no more
  }
  row(last) = value;
  if (!is_finite(sum)) {
    sum = 0.0;
    for (std::int64_t i = first; i <= last; ++i) sum += row(i);
  }
  if (lanes.settings.rule.all == kGreedy) lanes.state.recent_sum[lane] = sum;
  return sum / static_cast<double>(last + 1 - first);
}

/// Passes a metric through the lane's filters. False while values are still being accumulated. NaN
/// does not enter the averages that would remember it, nor an infinite value the exponential one:
/// such a value decides as it is.
PLATEAU_HD inline bool filtered(const Lanes& lanes, std::int64_t lane, double& value) noexcept {
  const State& state = lanes.state;
  const std::int32_t accumulate = state.total ? lanes.settings.accumulate[lane] : 1;
  if (accumulate > 1) {
    state.total[lane] += value;
    if (++state.taken[lane] < accumulate) return false;
    value = state.total[lane] / static_cast<double>(state.taken[lane]);
    state.total[lane] = 0.0;
    state.taken[lane] = 0;
  }
  if (is_nan(value)) return true;
  const std::int32_t window = state.recent ? lanes.settings.window[lane] : 1;
  if (window > 1) value = windowed(lanes, lane, window, value);
  const double smoothing = state.smooth ? lanes.settings.smoothing[lane] : 0.0;
  if (smoothing > 0.0 && is_finite(value)) {
    value = smoothed(value, smoothing, state.smooth[lane], state.smooth_rest[lane]);
  }
  return true;
}

}  // namespace plateau
