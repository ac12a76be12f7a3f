// SPDX-License-Identifier: BSD-3-Clause
// What a replay keeps and writes down of one lane: the same on every device.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/replay.hpp"
#include "plateau/types.hpp"

namespace plateau {

/// One lane's part of the summary.
struct Tally {
  std::int32_t improved = 0;
  std::int32_t first_cut = 0;
  std::int32_t wasted = 0;

  /// Counts a step, numbered from 1.
  PLATEAU_HD void count(int outcome, std::int32_t step) noexcept {
    improved += (outcome & kImproved) != 0;
    if (outcome & kReduced) cut(step, improved);
  }

  PLATEAU_HD void cut(std::int32_t step, std::int32_t improvements) noexcept {
    if (first_cut) return;
    first_cut = step;
    wasted = step - improvements;
  }

  PLATEAU_HD void store(const Record& record, std::int64_t lane,
                        std::int64_t epochs) const noexcept {
    record.first_cut[lane] = first_cut;
    record.wasted[lane] = first_cut ? wasted : static_cast<std::int32_t>(epochs) - improved;
  }
};

/// Writes a lane's entry in the rows of an epoch. Its published rates are read from memory.
template <class T>
PLATEAU_HD void write_entry(const Lanes& lanes, const Record& record, std::int64_t lane,
                            std::int64_t epoch, int outcome, T best, std::int32_t clock,
                            double value) noexcept {
  const std::int64_t at = epoch * lanes.n + lane;
  if (record.outcome) record.outcome[at] = static_cast<std::uint8_t>(outcome);
  if (record.best) static_cast<T*>(record.best)[at] = best;
  if (record.clock) record.clock[at] = clock;
  if (record.value) record.value[at] = value;
  if (!record.published) return;
  float* row = record.published + epoch * lanes.num_groups;
  const std::int64_t first = lanes.first_group(lane);
  const std::int64_t last = lanes.first_group(lane + 1);
  for (std::int64_t group = first; group < last; ++group) row[group] = lanes.state.published[group];
}

PLATEAU_HD inline void write_told(const Record& record, std::int64_t at,
                                  const Told& told) noexcept {
  if (record.why) record.why[at] = told.why;
  if (record.gate) record.gate[at] = told.gate;
  if (record.count) record.count[at] = told.count;
  if (record.limit) record.limit[at] = told.limit;
}

/// An epoch of a lane whose state is in memory. Steps are counted only after the last epoch.
template <class T>
PLATEAU_HD void replay_step(const Lanes& lanes, const History& history, const Record& record,
                            std::int64_t lane, std::int64_t epoch, Tally& tally) noexcept {
  double metric = metric_at<double>(history.at(epoch), lane);
  Told told;
  const int outcome = step_lane<T>(lanes, lane, lanes.age(lane) + epoch + 1, metric, told);
  tally.count(outcome, static_cast<std::int32_t>(epoch + 1));
  lanes.state.outcome[lane] = static_cast<std::uint8_t>(outcome);
  write_entry(lanes, record, lane, epoch, outcome, static_cast<T*>(lanes.state.best)[lane],
              lanes.state.clock[lane], metric);
  write_told(record, epoch * lanes.n + lane, told);
}

}  // namespace plateau
