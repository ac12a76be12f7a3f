// SPDX-License-Identifier: BSD-3-Clause
// The filters of a block's metrics, in passes: what filtered() in lane.hpp does to each.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/parts.hpp"
#include "plateau/lane.hpp"
#include "plateau/rule.hpp"

namespace plateau {

PLATEAU_INLINE void accumulate(const Lanes& lanes, const Parts& parts, Block& block) noexcept {
  double* __restrict value = block.filtered;
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
                               const Block& block) noexcept {
  const double* __restrict value = block.filtered;
  const std::int64_t* __restrict pushed = lanes.state.pushed + block.begin;
  std::int64_t differ = 0;
  for (int i = 0; i < block.count; ++i) differ |= pushed[i] ^ pushed[0];
  std::int32_t other = 0;
  for (int i = 0; i < block.count; ++i) {
    other |= (window[i] ^ window[0]) | !block.here[i] | is_nan(value[i]);
  }
  return !differ && !other && window[0] > 1;
}

PLATEAU_INLINE void average(const Lanes& lanes, const Parts& parts, Block& block) noexcept {
  double* __restrict value = block.filtered;
  const int count = block.count;
  const std::int32_t* __restrict window = parts.window.at(block.begin);
  if (!share_rows(lanes, window, block)) {
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

PLATEAU_INLINE void smooth(const Lanes& lanes, const Parts& parts, Block& block) noexcept {
  double* __restrict value = block.filtered;
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

/// All of them, in the order in which they are applied.
PLATEAU_INLINE void filter(const Lanes& lanes, const Parts& parts, Block& block) noexcept {
  if (lanes.state.total) accumulate(lanes, parts, block);
  if (lanes.state.recent) average(lanes, parts, block);
  if (lanes.state.smooth) smooth(lanes, parts, block);
}

}  // namespace plateau
