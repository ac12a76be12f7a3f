// SPDX-License-Identifier: BSD-3-Clause
// The filters of a block's metrics, in passes: what plateau/filters.hpp does to each.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/parts.hpp"
#include "cpu/passes.hpp"
#include "plateau/filters.hpp"
#include "plateau/rule.hpp"

namespace plateau {

/// Adds values up, and leaves those lanes out that go on collecting. In most steps all do.
template <class Most>
PLATEAU_INLINE void accumulate(const Lanes& lanes, Block& block, Most most) noexcept {
  const int count = block.count;
  double* __restrict value = block.filtered;
  double* __restrict total = lanes.state.total + block.begin;
  std::int32_t* __restrict taken = lanes.state.taken + block.begin;
  const Flags& here = block.here;
  Flags& rest = block.rare;  // who goes on collecting
  std::int32_t collects = 0, decides = 0;
  for (int i = 0; i < count; ++i) {
    rest[i] = here[i] & (most(i) > 1) & (taken[i] + 1 < most(i));
    collects |= rest[i];
    decides |= here[i] & (rest[i] ^ 1);
  }
  if (!decides) {
    for (int i = 0; i < count; ++i) total[i] = here[i] ? total[i] + value[i] : total[i];
    for (int i = 0; i < count; ++i) taken[i] += here[i];
    block.leave_out(rest);
    return;
  }
  for (int i = 0; i < count; ++i) {
    const bool counts = here[i] & (most(i) > 1), full = rest[i] == 0;
    const double sum = total[i] + value[i];
    const std::int32_t number = taken[i] + 1;
    value[i] = (counts & full) ? sum / static_cast<double>(number) : value[i];
    total[i] = counts ? (full ? 0.0 : sum) : total[i];
    taken[i] = counts ? (full ? 0 : number) : taken[i];
  }
  if (collects) block.leave_out(rest);
}

/// Whether the values of all lanes of a block enter windows of one length, row by row.
template <class Window>
PLATEAU_INLINE bool share_rows(const Lanes& lanes, const Block& block, Window window) noexcept {
  if (block.who != Block::kAll || window(0) <= 1) return false;
  const double* __restrict value = block.filtered;
  const std::int64_t* __restrict pushed = lanes.state.pushed + block.begin;
  std::int64_t differ = 0;
  for (int i = 0; i < block.count; ++i) differ |= pushed[i] ^ pushed[0];
  std::int32_t other = 0;
  for (int i = 0; i < block.count; ++i) other |= window(i) ^ window(0);
  std::int64_t nan = 0;
  for (int i = 0; i < block.count; ++i) nan |= is_nan(value[i]) ? 1 : 0;
  return !differ && !other && !nan;
}

/// Asks for what the next block's windows hold: rows lie far apart, so that the processor finds
/// out too late that they are read one after the other.
inline void fetch_rows([[maybe_unused]] const Lanes& lanes,
                       [[maybe_unused]] const Block& block) noexcept {
#if defined(__GNUC__)
  constexpr int kLine = 64 / sizeof(double);
  const std::int64_t next = block.begin + block.count;
  const std::int64_t end = std::min<std::int64_t>(next + kPart, lanes.n);
  for (std::int64_t row = 0; row < lanes.window_rows; ++row) {
    const double* values = lanes.state.recent + row * lanes.n;
    for (std::int64_t i = next; i < end; i += kLine) __builtin_prefetch(values + i, 1);
  }
#endif
}

/// Adds rows of the windows up, four in one pass.
PLATEAU_INLINE void add_rows(const Lanes& lanes, std::int64_t first, std::int64_t last,
                             Block& block) noexcept {
  double* __restrict sum = block.filtered;
  const int count = block.count;
  const auto row = [&](std::int64_t i) PLATEAU_INLINED {
    return lanes.state.recent + (i % lanes.window_rows) * lanes.n + block.begin;
  };
  std::int64_t at = first;
  for (; at + 3 <= last; at += 4) {
    const double* __restrict a = row(at);
    const double* __restrict b = row(at + 1);
    const double* __restrict c = row(at + 2);
    const double* __restrict d = row(at + 3);
    for (int i = 0; i < count; ++i) sum[i] = sum[i] + a[i] + b[i] + c[i] + d[i];
  }
  for (; at <= last; ++at) {
    const double* __restrict a = row(at);
    for (int i = 0; i < count; ++i) sum[i] += a[i];
  }
}

/// The means of the lanes' windows, each added up from the oldest value on.
template <class Window>
PLATEAU_INLINE void average(const Lanes& lanes, Block& block, Window window) noexcept {
  double* __restrict value = block.filtered;
  const int count = block.count;
  if (!share_rows(lanes, block, window)) {
    block.each_of(block.here, [&](int i) {
      if (window(i) <= 1 || is_nan(value[i])) return;
      value[i] = windowed(lanes, block.begin + i, window(i), value[i]);
    });
    return;
  }
  std::int64_t* __restrict pushed = lanes.state.pushed + block.begin;
  const std::int64_t last = pushed[0];
  const std::int64_t first = last + 1 < window(0) ? 0 : last + 1 - window(0);
  std::copy_n(value, count,
              lanes.state.recent + (last % lanes.window_rows) * lanes.n + block.begin);
  std::fill_n(value, count, 0.0);
  fetch_rows(lanes, block);
  add_rows(lanes, first, last, block);
  const auto size = static_cast<double>(last + 1 - first);
  for (int i = 0; i < count; ++i) value[i] /= size;
  for (int i = 0; i < count; ++i) ++pushed[i];
}

/// Whether all lanes of a block take a value in that is neither NaN nor infinite.
PLATEAU_INLINE bool all_finite(const Block& block) noexcept {
  const double* __restrict value = block.filtered;
  std::int64_t other = 0;
  for (int i = 0; i < block.count; ++i) other |= is_finite(value[i]) ? 0 : 1;
  return block.who == Block::kAll && !other;
}

template <class Smoothing>
PLATEAU_INLINE void smooth(const Lanes& lanes, Block& block, Smoothing smoothing) noexcept {
  const int count = block.count;
  double* __restrict value = block.filtered;
  double* __restrict sums = lanes.state.smooth + block.begin;
  double* __restrict rests = lanes.state.smooth_rest + block.begin;
  const bool every = !lanes.settings.smoothing.each && smoothing(0) > 0.0;
  if (every && all_finite(block)) {
    for (int i = 0; i < count; ++i) {
      value[i] = smoothed(value[i], smoothing(i), sums[i], rests[i]);
    }
    return;
  }
  for (int i = 0; i < count; ++i) {
    double sum = sums[i], rest = rests[i];
    const double mean = smoothed(value[i], smoothing(i), sum, rest);
    const bool counts = (block.here[i] != 0) & (smoothing(i) > 0.0) & is_finite(value[i]);
    sums[i] = counts ? sum : sums[i];
    rests[i] = counts ? rest : rests[i];
    value[i] = counts ? mean : value[i];
  }
}

/// All of them, in the order in which they are applied.
PLATEAU_INLINE void filter(const Lanes& lanes, Block& block) noexcept {
  const Settings& settings = lanes.settings;
  if (lanes.state.total) {
    with(settings.accumulate, block.begin,
         [&](auto most) PLATEAU_INLINED { accumulate(lanes, block, most); });
  }
  if (lanes.state.recent && block.who != Block::kNobody) {
    with(settings.window, block.begin,
         [&](auto window) PLATEAU_INLINED { average(lanes, block, window); });
  }
  if (lanes.state.smooth && block.who != Block::kNobody) {
    with(settings.smoothing, block.begin,
         [&](auto smoothing) PLATEAU_INLINED { smooth(lanes, block, smoothing); });
  }
}

}  // namespace plateau
