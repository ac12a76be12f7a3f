// SPDX-License-Identifier: BSD-3-Clause
// One lane with optional parts: what a step does to it, in the order in which it does so. The same
// on every device; a plain step has a loop of its own and comes not here.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/group.hpp"
#include "plateau/options.hpp"
#include "plateau/rule.hpp"
#include "plateau/types.hpp"

namespace plateau {

/// What the first half of a lane's step asks of the second.
enum Ask : int {
  kAskImproved = 1,
  kAskCut = 2,     ///< lower the rates
  kAskWarmUp = 4,  ///< publish the rates times the warm-up's factor
};

PLATEAU_HD inline bool is_nan(double x) noexcept { return x != x; }
PLATEAU_HD inline bool is_finite(double x) noexcept { return x - x == 0.0; }

/// The mean of the last `window` values, the new one included, added up from the oldest on.
PLATEAU_HD inline double windowed(const Options& options, std::int64_t n, std::int64_t lane,
                                  std::int32_t window, double value) noexcept {
  const std::int64_t last = options.pushed[lane]++;
  options.recent[(last % options.recent_size) * n + lane] = value;
  const std::int64_t first = last + 1 < window ? 0 : last + 1 - window;
  double sum = 0.0;
  for (std::int64_t i = first; i <= last; ++i) {
    sum += options.recent[(i % options.recent_size) * n + lane];
  }
  return sum / static_cast<double>(last + 1 - first);
}

/// Passes a metric through the lane's filters. False while values are still being accumulated. NaN
/// does not enter the averages that would remember it, nor an infinite value the exponential one:
/// such a value decides as it is.
PLATEAU_HD inline bool filtered(const Options& options, std::int64_t n, std::int64_t lane,
                                double& value) noexcept {
  const std::int32_t accumulate = options.total ? options.accumulate[lane] : 1;
  if (accumulate > 1) {
    options.total[lane] += value;
    if (++options.taken[lane] < accumulate) return false;
    value = options.total[lane] / static_cast<double>(options.taken[lane]);
    options.total[lane] = 0.0;
    options.taken[lane] = 0;
  }
  if (is_nan(value)) return true;
  const std::int32_t window = options.recent ? options.window[lane] : 1;
  if (window > 1) value = windowed(options, n, lane, window, value);
  const double smoothing = options.smooth ? options.smoothing[lane] : 0.0;
  if (smoothing > 0.0 && is_finite(value)) {
    value = smoothed(value, smoothing, options.smooth[lane], options.smooth_rest[lane]);
  }
  return true;
}

/// One more bad step of a lane: at its floor too many of them finish it.
PLATEAU_HD inline void count_at_min(const Options& options, std::int64_t lane) noexcept {
  std::uint8_t& flags = options.flags[lane];
  if (!options.at_min_steps || !(flags & kAtMin)) return;
  if (++options.at_min_steps[lane] >= options.patience_at_min[lane]) flags |= kFinished;
}

/// The first half of a step: all but the rates. Returns Ask bits; `metric` is what decided.
template <class T>
PLATEAU_HD int begin_step(const Lanes& lanes, const Options& options, std::int64_t lane,
                          double& metric) noexcept {
  std::uint8_t& flags = options.flags[lane];
  if (flags & kFinished) return 0;
  const auto on_nan = static_cast<OnNan>(options.on_nan[lane]);
  if (is_nan(metric) && on_nan == OnNan::kSkip) return 0;
  if (is_nan(metric) && on_nan == OnNan::kFreeze) {
    flags |= kFinished;
    return 0;
  }
  const std::int64_t age = ++options.age[lane];
  const int warming = age <= options.warmup_steps[lane] ? kAskWarmUp : 0;
  if (is_nan(metric) && on_nan == OnNan::kCut) {
    if (!warming) count_at_min(options, lane);
    return kAskCut | warming;
  }
  if (!filtered(options, lanes.n, lane, metric)) return warming;

  const Settings& settings = lanes.settings;
  const Gate gate{settings.gate_scale[lane], settings.gate_shift[lane],
                  settings.maximize[lane] != 0, options.safe_gate[lane] != 0};
  T& best = static_cast<T*>(lanes.best)[lane];
  const bool improved = improves(metric, best, gate);
  if (improved) best = static_cast<T>(metric);
  const int ask = (improved ? kAskImproved : 0) | warming;
  if (warming) return ask;

  std::int32_t& clock = lanes.clock[lane];
  const bool keras = options.keras[lane] != 0;
  const bool cooling = clock < (keras ? -1 : 0);
  clock = keras ? tick_keras(clock, improved) : tick(clock, improved);
  if (improved && options.at_min_steps) options.at_min_steps[lane] = 0;
  if (!improved && !cooling) count_at_min(options, lane);
  const std::int32_t patience =
      flags & kOnceFired ? settings.patience[lane] : options.initial_patience[lane];
  return ask | (fires(clock, patience) ? kAskCut : 0);
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

/// What the second half did to a group.
enum Done : int {
  kDoneReduced = 1,
  kDoneRoom = 2,  ///< the rate could be lowered once more
};

/// The second half of a step, for one group of a lane that asked for it. Returns Done bits.
template <class T>
PLATEAU_HD int step_group(const Lanes& lanes, const Options& options, std::int64_t lane,
                          std::int64_t group, int ask, double metric) noexcept {
  const Settings& settings = lanes.settings;
  const std::int32_t warmup = options.warmup_steps[lane];
  const std::int64_t age = options.age[lane];
  int done = 0;
  if (ask & kAskCut) {
    // in warm-up the published rate is not the master's copy for a good reason
    const double old =
        age <= warmup ? lanes.rate[group] : current_rate(lanes.rate[group], lanes.published[group]);
    const double factor = settings.factor[lane], min_lr = settings.min_lr[group];
    const double rate = cut(old, factor, min_lr, settings.eps[lane]);
    if (rate < old) {
      done |= kDoneReduced;
      lanes.rate[group] = rate;
      lanes.published[group] = static_cast<float>(rate);
      const Events& events = options.events;
      if (events.capacity > 0) {
        const std::int64_t at = take_ticket(events.written) % events.capacity;
        events.lane[at] = lane;
        events.group[at] = group;
        events.step[at] = age;
        events.old_rate[at] = old;
        events.new_rate[at] = rate;
        events.metric[at] = metric;
        events.best[at] = static_cast<double>(static_cast<T*>(lanes.best)[lane]);
      }
    }
    if (cut(rate, factor, min_lr, settings.eps[lane]) < rate) done |= kDoneRoom;
  }
  if (ask & kAskWarmUp) {
    lanes.published[group] = static_cast<float>(
        lanes.rate[group] * warm_up(options.warmup_start_factor[lane], warmup, age));
  }
  return done;
}

/// The end of a step, when all groups of the lane are done. Returns Outcome bits.
PLATEAU_HD inline int end_step(const Lanes& lanes, const Options& options, std::int64_t lane,
                               int ask, int done) noexcept {
  const bool reduced = done & kDoneReduced;
  if (ask & kAskCut) {
    std::uint8_t flags = options.flags[lane] | kOnceFired;
    flags = static_cast<std::uint8_t>(done & kDoneRoom ? flags & ~kAtMin : flags | kAtMin);
    if (reduced || !options.keras[lane]) lanes.clock[lane] = -lanes.settings.cooldown[lane];
    if (reduced) {
      const std::int32_t count = ++lanes.num_reductions[lane];
      if (options.last_reduction) options.last_reduction[lane] = options.age[lane];
      if (count >= options.max_reductions[lane]) flags |= kFinished;
    }
    options.flags[lane] = flags;
  }
  return (ask & kAskImproved ? kImproved : 0) | (reduced ? kReduced : 0);
}

/// A whole step of a lane by one thread. `metric` becomes what decided. Returns Outcome bits.
template <class T>
PLATEAU_HD int step_lane(const Lanes& lanes, const Options& options, std::int64_t lane,
                         double& metric) noexcept {
  const int ask = begin_step<T>(lanes, options, lane, metric);
  int done = 0;
  if (ask & (kAskCut | kAskWarmUp)) {
    const std::int64_t first = lanes.first_group(lane);
    const std::int64_t last = lanes.first_group(lane + 1);
    for (std::int64_t group = first; group < last; ++group) {
      done |= step_group<T>(lanes, options, lane, group, ask, metric);
    }
  }
  return end_step(lanes, options, lane, ask, done);
}

}  // namespace plateau
