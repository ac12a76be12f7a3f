// SPDX-License-Identifier: BSD-3-Clause
// A history that many lanes share, filtered once for each way in which they do: a sweep has few.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "cpu/parts.hpp"
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/replay.hpp"

namespace plateau {

class SharedFilters {
 public:
  /// Filters the history, and leaves every lane's filters as they are after it. Does nothing, and
  /// is not `shared()`, where lanes may be finished or skip values on the way, collect them, have
  /// taken some before, or differ too much for that to pay. Where memory for it is not to be had it
  /// throws std::bad_alloc, with nothing changed.
  SharedFilters(const Lanes& lanes, const History& history) : epochs_(history.epochs) {
    if (history.first.stride != 0 || !find_ways(lanes)) return;
    values_.resize(firsts_.size() * static_cast<std::size_t>(epochs_));
    for (std::size_t way = 0; way < firsts_.size(); ++way) {
      for (std::int64_t epoch = 0; epoch < epochs_; ++epoch) {
        double value = metric_at<double>(history.at(epoch), 0);
        filtered(lanes, firsts_[way], value);
        values_[way * static_cast<std::size_t>(epochs_) + static_cast<std::size_t>(epoch)] = value;
      }
    }
    for (std::int64_t lane = 0; lane < lanes.n; ++lane) {
      copy_filters(lanes, firsts_[ways_[static_cast<std::size_t>(lane)]], lane);
    }
  }

  bool shared() const noexcept { return !firsts_.empty(); }

  /// Writes the values that decide in an epoch, of `count` lanes from `begin` on.
  PLATEAU_INLINE void fill(std::int64_t epoch, std::int64_t begin, int count,
                           double* __restrict out) const noexcept {
    const std::uint32_t* __restrict way = ways_.data() + begin;
    const double* __restrict value = values_.data() + epoch;
    std::uint32_t differ = 0;
    for (int i = 0; i < count; ++i) differ |= way[i] ^ way[0];
    if (differ) {
      for (int i = 0; i < count; ++i) out[i] = value[way[i] * epochs_];
    } else {
      std::fill_n(out, count, value[way[0] * epochs_]);
    }
  }

 private:
  static constexpr std::size_t kShared = 16;  // lanes a way, at least

  bool find_ways(const Lanes& lanes) {
    const Settings& settings = lanes.settings;
    const State& state = lanes.state;
    const auto off = [](const auto& setting, auto unless) {
      return !setting.each && setting.all == unless;
    };
    const bool goes_on = off(settings.nan, kNanBad) && off(settings.max_steps, kNoLimit) &&
                         off(settings.max_reductions, kNoLimit) &&
                         off(settings.stop_at, kInfinity) && off(settings.diverge_at, kInfinity) &&
                         !state.judged && !state.at_min_steps;
    if (!goes_on || state.total || !(state.smooth || state.recent)) return false;
    const auto most = static_cast<std::size_t>(lanes.n) / kShared;
    std::map<std::pair<std::int32_t, double>, std::uint32_t> found;
    ways_.reserve(static_cast<std::size_t>(lanes.n));
    for (std::int64_t lane = 0; lane < lanes.n; ++lane) {
      const bool fresh =
          (!state.recent || state.pushed[lane] == 0) &&
          (!state.smooth || (state.smooth[lane] == 0.0 && state.smooth_rest[lane] == 1.0));
      if (!fresh || flags_of(lanes, lane) & kFinished) return firsts_.clear(), false;
      const auto way = std::make_pair(state.recent ? settings.window[lane] : 1,
                                      state.smooth ? settings.smoothing[lane] : 0.0);
      const auto next = static_cast<std::uint32_t>(firsts_.size());
      const auto [place, is_new] = found.emplace(way, next);
      if (is_new) firsts_.push_back(lane);
      if (firsts_.size() > most) return firsts_.clear(), false;
      ways_.push_back(place->second);
    }
    return true;
  }

  static void copy_filters(const Lanes& lanes, std::int64_t from, std::int64_t to) noexcept {
    const State& state = lanes.state;
    if (state.smooth) {
      state.smooth[to] = state.smooth[from];
      state.smooth_rest[to] = state.smooth_rest[from];
    }
    if (!state.recent) return;
    state.pushed[to] = state.pushed[from];
    for (std::int64_t row = 0; row < lanes.window_rows; ++row) {
      state.recent[row * lanes.n + to] = state.recent[row * lanes.n + from];
    }
  }

  std::int64_t epochs_;
  std::vector<std::int64_t> firsts_;  // of each way, the first lane that has it
  std::vector<std::uint32_t> ways_;   // of each lane
  std::vector<double> values_;        // [ways, epochs]
};

}  // namespace plateau
