// SPDX-License-Identifier: BSD-3-Clause
// One lane, one step: what happens to it, in the order in which it does. The same on every device.
// Plain lanes have vector loops of their own for the first half; what those cannot tell (why) and
// do not have (optional parts) is here.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/fire.hpp"
#include "plateau/lanes.hpp"
#include "plateau/rule.hpp"

namespace plateau {

/// Why a step of a lane did what it did.
enum Reason : std::uint8_t {
  kPassed,      ///< the lane was finished before
  kSkipped,     ///< NaN: no step
  kFroze,       ///< NaN: the lane is finished
  kCollecting,  ///< values are being accumulated
  kWarming,     ///< a warm-up: nothing but best counts
  kCooling,     ///< a cooldown: nothing but best counts
  kBetter,
  kBad,
  kCutByNan,  ///< NaN: cut now
};
constexpr const char* kReasons = "passed skipped froze collecting warming cooling better bad nan";

/// Bits beside the reason.
enum Also : std::uint8_t {
  kReasonBits = 15,
  kAlsoFinished = 16,  ///< the lane is finished by this step
  kAlsoFirst = 32,     ///< `initial_patience` is what bears
  kAlsoGain = 64,      ///< better than best, but not by enough
};

/// What a step says of itself where it is asked.
struct Told {
  std::uint8_t why = kPassed;  ///< Reason and Also bits
  double gate = 0;             ///< what the value had to beat
  /// How far of how much: values collected, steps of the warm-up, of the cooldown that are left, or
  /// bad steps of those borne by the patience in force.
  std::int32_t count = 0, limit = 0;

  PLATEAU_HD void say(int reason, std::int64_t how_far = 0, std::int32_t of = 0) noexcept {
    why = static_cast<std::uint8_t>(reason);
    count = static_cast<std::int32_t>(how_far);
    limit = of;
  }
};

/// What the first half of a lane's step asks of the second.
enum Ask : int {
  kAskImproved = 1,
  kAskCut = 2,     ///< lower the rates
  kAskWarmUp = 4,  ///< publish the rates times the warm-up's factor
};

PLATEAU_HD inline bool is_nan(double x) noexcept { return x != x; }
PLATEAU_HD inline bool is_finite(double x) noexcept { return x - x == 0.0; }

/// A plain lane's step, all but what firing does. Returns Outcome bits without kReduced.
template <class T>
PLATEAU_HD int decide(const Lanes& lanes, std::int64_t lane, T metric, T& best,
                      std::int32_t& clock) noexcept {
  const bool improved = improves(metric, best, lanes.gate_at(lane));
  if (improved) best = metric;
  clock = tick(clock, improved);
  const bool fired = fires(clock, lanes.bears_at(lane));
  return (improved ? kImproved : 0) | (fired ? kFired : 0);
}

/// The mean of the last `window` values, the new one included, added up from the oldest on.
PLATEAU_HD inline double windowed(const Lanes& lanes, std::int64_t lane, std::int32_t window,
                                  double value) noexcept {
  const auto row = [&](std::int64_t i) -> double& {
    return lanes.state.recent[(i % lanes.window_rows) * lanes.n + lane];
  };
  const std::int64_t last = lanes.state.pushed[lane]++;
  row(last) = value;
  const std::int64_t first = last + 1 < window ? 0 : last + 1 - window;
  double sum = 0.0;
  for (std::int64_t i = first; i <= last; ++i) sum += row(i);
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

PLATEAU_HD inline std::uint8_t flags_of(const Lanes& lanes, std::int64_t lane) noexcept {
  return lanes.state.flags ? lanes.state.flags[lane] : std::uint8_t{0};
}

PLATEAU_HD inline void raise_flag(const Lanes& lanes, std::int64_t lane, Flag flag) noexcept {
  lanes.state.flags[lane] = static_cast<std::uint8_t>(lanes.state.flags[lane] | flag);
}

/// One more bad step of a lane: at its floor too many of them finish it.
PLATEAU_HD inline void count_at_min(const Lanes& lanes, std::int64_t lane) noexcept {
  std::int32_t* bad = lanes.state.at_min_steps;
  if (!bad || !(flags_of(lanes, lane) & kAtMin)) return;
  if (++bad[lane] >= lanes.settings.patience_at_min[lane]) raise_flag(lanes, lane, kFinished);
}

/// A step passes the lane by, which does not age.
PLATEAU_HD inline void pass_by(const Lanes& lanes, std::int64_t lane) noexcept {
  ++lanes.state.born[lane];
  ++lanes.state.last_cut[lane];
}

/// The first half of a step: all but the rates. `step` is the lane's own number of it, from 1.
/// Returns Ask bits; `metric` becomes what decided.
template <class T>
PLATEAU_HD int begin_step(const Lanes& lanes, std::int64_t lane, std::int64_t step, double& metric,
                          Told& told) noexcept {
  const Settings& settings = lanes.settings;
  const std::uint8_t on_nan = is_nan(metric) ? settings.nan[lane] : std::uint8_t{kNanBad};
  T& best = static_cast<T*>(lanes.state.best)[lane];
  const Gate gate = lanes.gate_at(lane);
  const double bar = told.gate = bar_of(best, gate);
  if (flags_of(lanes, lane) & kFinished || on_nan == kNanSkip) {
    told.say(flags_of(lanes, lane) & kFinished ? kPassed : kSkipped);
    pass_by(lanes, lane);
    return 0;
  }
  if (on_nan == kNanFreeze) {
    told.say(kFroze);
    raise_flag(lanes, lane, kFinished);
    pass_by(lanes, lane);
    return 0;
  }
  const std::int32_t warmup = settings.warmup_steps[lane];
  const int warming = step <= warmup ? kAskWarmUp : 0;
  const bool may_cut = step >= settings.min_steps[lane];
  if (on_nan == kNanCut && may_cut) {
    told.say(kCutByNan);
    if (!warming) count_at_min(lanes, lane);
    return kAskCut | warming;
  }
  if (!filtered(lanes, lane, metric)) {
    told.say(kCollecting, lanes.state.taken[lane], settings.accumulate[lane]);
    return warming;
  }
  const bool improved = beats(metric, bar, gate.maximize);
  const bool gain = !improved && beats(metric, best, gate.maximize);
  if (improved) best = static_cast<T>(metric);
  const int ask = (improved ? kAskImproved : 0) | warming;
  if (warming) {
    told.say(kWarming, step, warmup);
    return ask;
  }
  std::int32_t& clock = lanes.state.clock[lane];
  const std::uint8_t counting = settings.counting[lane];
  const bool cooling = clock < (counting == kKeras ? -1 : 0);
  clock = counting == kKeras ? tick_keras(clock, improved) : tick(clock, improved);
  if (improved && lanes.state.at_min_steps) lanes.state.at_min_steps[lane] = 0;
  if (!improved && !cooling) count_at_min(lanes, lane);
  const std::int32_t first = settings.initial_patience[lane];
  const bool is_first = first >= 0 && !(flags_of(lanes, lane) & kOnceFired);
  const std::int32_t patience = is_first ? first : settings.patience[lane];
  if (cooling) {
    told.say(kCooling, clock < 0 ? -clock : 0, settings.cooldown[lane]);
  } else if (improved) {
    told.say(kBetter);
  } else {
    told.say(kBad | (is_first ? kAlsoFirst : 0) | (gain ? kAlsoGain : 0), clock, patience);
  }
  return ask | (may_cut && fires(clock, borne(patience, counting)) ? kAskCut : 0);
}

PLATEAU_HD inline std::int64_t take_ticket(std::int64_t* counter) noexcept {
#ifdef __CUDA_ARCH__
  return static_cast<std::int64_t>(atomicAdd(reinterpret_cast<unsigned long long*>(counter), 1ULL));
#elif defined(__GNUC__)  // only the emulation of CUDA has other threads here
  return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
#else
  return (*counter)++;
#endif
}

/// Writes a cut down, over the oldest one.
template <class T>
PLATEAU_HD void record(const Lanes& lanes, std::int64_t lane, std::int64_t group, std::int64_t step,
                       const Cut& cut, double metric) noexcept {
  if (lanes.events_capacity == 0) return;
  const State& state = lanes.state;
  const std::int64_t at = take_ticket(state.events_written) % lanes.events_capacity;
  state.events_lane[at] = lane;
  state.events_group[at] = group;
  state.events_step[at] = step;
  state.events_old_rate[at] = cut.old;
  state.events_new_rate[at] = cut.rate;
  state.events_metric[at] = metric;
  state.events_best[at] = static_cast<double>(static_cast<T*>(state.best)[lane]);
}

/// What the second half did to a group.
enum Done : int {
  kDoneReduced = 1,
  kDoneRoom = 2,  ///< the rate could be lowered once more
};

/// The second half of a step, for one group of a lane that asked for it. Returns Done bits.
template <class T>
PLATEAU_HD int step_group(const Lanes& lanes, std::int64_t lane, std::int64_t group,
                          std::int64_t step, int ask, double metric) noexcept {
  const Settings& settings = lanes.settings;
  const std::int32_t warmup = settings.warmup_steps[lane];
  int done = 0;
  if (ask & kAskCut) {
    const Cut now = cut_group(lanes, lane, group, step <= warmup);
    if (now.lowered()) {
      done |= kDoneReduced;
      record<T>(lanes, lane, group, step, now, metric);
    }
    const double next =
        cut(now.rate, settings.factor[lane], settings.min_lr[group], settings.eps[lane]);
    if (next < now.rate) done |= kDoneRoom;
  }
  if (ask & kAskWarmUp) {
    lanes.state.published[group] = static_cast<float>(
        lanes.state.rate[group] * warm_up(settings.warmup_start_factor[lane], warmup, step));
  }
  return done;
}

/// The end of a step, when all groups of the lane are done. Returns Outcome bits.
PLATEAU_HD inline int end_step(const Lanes& lanes, std::int64_t lane, std::int64_t step, int ask,
                               int done) noexcept {
  int outcome = ask & kAskImproved ? kImproved : 0;
  if (!(ask & kAskCut)) return outcome;
  outcome |= end_fire(lanes, lane, step + lanes.state.born[lane], done & kDoneReduced,
                      lanes.state.clock[lane]);
  if (!lanes.state.flags) return outcome;
  std::uint8_t flags = lanes.state.flags[lane] | kOnceFired;
  flags = static_cast<std::uint8_t>(done & kDoneRoom ? flags & ~kAtMin : flags | kAtMin);
  if ((outcome & kReduced) &&
      lanes.state.num_reductions[lane] >= lanes.settings.max_reductions[lane]) {
    flags |= kFinished;
  }
  lanes.state.flags[lane] = flags;
  return outcome;
}

/// A whole step of a lane by one thread. `metric` becomes what decided. Returns Outcome bits.
template <class T>
PLATEAU_HD int step_lane(const Lanes& lanes, std::int64_t lane, std::int64_t step, double& metric,
                         Told& told) noexcept {
  const int ask = begin_step<T>(lanes, lane, step, metric, told);
  int done = 0;
  if (ask & (kAskCut | kAskWarmUp)) {
    const std::int64_t first = lanes.first_group(lane);
    const std::int64_t last = lanes.first_group(lane + 1);
    for (std::int64_t group = first; group < last; ++group) {
      done |= step_group<T>(lanes, lane, group, step, ask, metric);
    }
  }
  const int outcome = end_step(lanes, lane, step, ask, done);
  const bool passed = (told.why & kReasonBits) == kPassed;
  if (!passed && (flags_of(lanes, lane) & kFinished)) told.why |= kAlsoFinished;
  return outcome;
}

}  // namespace plateau
