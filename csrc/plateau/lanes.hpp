// SPDX-License-Identifier: BSD-3-Clause
// A batch of lanes in memory, structure of arrays; nothing here is owned.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/rule.hpp"
#include "plateau/settings.hpp"
#include "plateau/state.hpp"
#include "plateau/types.hpp"

namespace plateau {

/// Steps are counted once for so many neighbouring lanes with one rate each (and for each lane that
/// owns several): the lanes that a block of threads takes, so that a block may read its count and
/// then raise it with no regard to others.
constexpr std::int64_t kLanesPerCount = 256;

/// What a cut goes by.
struct Cutting {
  double factor = 1, min_lr = 0, eps = 0;
  std::int32_t cooldown = 0;
  std::uint8_t counting = kTorch;
};

/// The state of `n` lanes. `state.best` holds float or double as `best_dtype` says. Lane i owns the
/// groups `offsets[i] .. offsets[i + 1]`, or just group i when `offsets` is null. `rate` is the
/// float64 master of each group and `published` the float32 copy that optimizers read.
///
/// What every step of plain lanes reads comes first: a kernel gets all this as its argument and
/// waits for each 64 bytes that it reads of it.
struct Lanes {
  std::int64_t n = 0;
  const std::int64_t* offsets = nullptr;
  Gate gate{1, 0, false};  ///< what serves all lanes, set by settle(): if `one_gate`, and
  std::int32_t bears = 0;  ///< the bad steps that are borne, if `one_bears`, and
  bool one_gate = true;
  bool one_bears = true;
  bool one_cutting = true;
  Dtype best_dtype = Dtype::kFloat64;
  Cutting cutting;  ///< what cuts go by, if `one_cutting`
  State state;
  Settings settings;
  std::int64_t num_groups = 0;
  std::int32_t window_rows = 1;      ///< of state.recent
  std::int64_t events_capacity = 0;  ///< 0, or at least num_groups: a step never overwrites its own

  /// The first group of a lane; of the lane past the last, the number of groups.
  PLATEAU_HD std::int64_t first_group(std::int64_t lane) const noexcept {
    return offsets ? offsets[lane] : lane;
  }

  PLATEAU_HD Gate gate_at(std::int64_t lane) const noexcept {
    if (one_gate) return gate;
    return gate_of(settings.mode[lane], settings.threshold[lane], settings.threshold_mode[lane],
                   settings.atol[lane]);
  }

  PLATEAU_HD std::int32_t bears_at(std::int64_t lane) const noexcept {
    return one_bears ? bears : borne(settings.patience[lane], settings.counting[lane]);
  }

  PLATEAU_HD Cutting cutting_at(std::int64_t lane, std::int64_t group) const noexcept {
    if (one_cutting) return cutting;
    return {settings.factor[lane], settings.min_lr[group], settings.eps[lane],
            settings.cooldown[lane], settings.counting[lane]};
  }

  /// Which count of steps is a lane's, and how many counts the first `lanes` lanes have.
  PLATEAU_HD std::int64_t count_of(std::int64_t lane) const noexcept {
    return offsets ? lane : lane / kLanesPerCount;
  }
  PLATEAU_HD std::int64_t num_counts(std::int64_t lanes) const noexcept {
    return offsets ? lanes : (lanes + kLanesPerCount - 1) / kLanesPerCount;
  }

  /// Steps that the batch has taken, as they are counted for this lane.
  PLATEAU_HD std::int64_t steps(std::int64_t lane) const noexcept {
    return state.num_steps[count_of(lane)];
  }

  /// Steps that the lane has taken.
  PLATEAU_HD std::int64_t age(std::int64_t lane) const noexcept {
    return steps(lane) - state.born[lane];
  }

  /// Whether what decides may be another number than the metric.
  bool has_filters() const noexcept { return state.total || state.recent || state.smooth; }

  /// To be called when the settings are set: works out what serves all lanes.
  void settle() noexcept {
    one_gate = !settings.mode.each && !settings.threshold.each && !settings.threshold_mode.each &&
               !settings.atol.each;
    if (one_gate) {
      gate = gate_of(settings.mode.all, settings.threshold.all, settings.threshold_mode.all,
                     settings.atol.all);
    }
    one_bears = !settings.patience.each && !settings.counting.each;
    if (one_bears) bears = borne(settings.patience.all, settings.counting.all);
    one_cutting = !settings.factor.each && !settings.min_lr.each && !settings.eps.each &&
                  !settings.cooldown.each && !settings.counting.each;
    if (one_cutting) {
      cutting = {settings.factor.all, settings.min_lr.all, settings.eps.all, settings.cooldown.all,
                 settings.counting.all};
    }
  }

  /// Counts steps of the whole batch, on the host.
  void count_steps(std::int64_t steps) const noexcept {
    std::int64_t* const counts = state.num_steps;
    const std::int64_t count = num_counts(n);
    for (std::int64_t i = 0; i < count; ++i) counts[i] += steps;
  }
};

}  // namespace plateau
