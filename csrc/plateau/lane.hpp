// SPDX-License-Identifier: BSD-3-Clause
// One lane, one step: what happens to it, in the order in which it does. The same on every device.
// Plain lanes have vector loops of their own for the first half; what those cannot tell (why) and
// do not have (optional parts) is here.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/filters.hpp"
#include "plateau/fire.hpp"
#include "plateau/lanes.hpp"
#include "plateau/noise.hpp"
#include "plateau/rule.hpp"
#include "plateau/stops.hpp"
#include "plateau/why.hpp"

namespace plateau {

/// What the first half of a lane's step asks of the second.
enum Ask : int {
  kAskImproved = 1,
  kAskCut = 2,      ///< lower the rates
  kAskWarmUp = 4,   ///< publish the rates times the warm-up's factor
  kAskFinish = 8,   ///< the lane's steps are used up
  kAskRaise = 16,   ///< raise the rates
  kAskAnew = 32,    ///< set the rates to those that the lane began with
  kAskNoise = 64,   ///< publish the rates with the lane's noise
  kAskQuiet = 128,  ///< and go by the masters: what is published is noisy still
  kAskMove = kAskCut | kAskRaise | kAskAnew,
  kAskRates = kAskMove | kAskWarmUp | kAskNoise,  ///< what is for the second half
};

/// A plain lane's step, all but what firing does, by its gate and the bad steps that it bears.
/// Returns Outcome bits without kReduced.
template <class T>
PLATEAU_HD int decide(Gate gate, std::int32_t bears, T metric, T& best,
                      std::int32_t& clock) noexcept {
  const bool improved = improves(metric, best, gate);
  if (improved) best = metric;
  clock = tick(clock, improved);
  return (improved ? kImproved : 0) | (fires(clock, bears) ? kFired : 0);
}

/// The same by the lane's settings, whatever is one per lane.
template <class T>
PLATEAU_HD int decide(const Lanes& lanes, std::int64_t lane, T metric, T& best,
                      std::int32_t& clock) noexcept {
  return decide(lanes.gate_at(lane), lanes.bears_at(lane), metric, best, clock);
}

/// A step passes the lane by, which does not age.
PLATEAU_HD inline void pass_by(const Lanes& lanes, std::int64_t lane) noexcept {
  ++lanes.state.born[lane];
  ++lanes.state.last_cut[lane];
}

/// Draws the noise of a step. Returns Ask bits.
PLATEAU_HD inline int draw_noise(const Lanes& lanes, std::int64_t lane, std::int64_t step,
                                 bool warming) noexcept {
  if (!lanes.state.noise) return 0;
  const Settings& settings = lanes.settings;
  double& noise = lanes.state.noise[lane];
  const int was_noisy = noise != 0.0 ? kAskQuiet | kAskNoise : 0;
  const std::int32_t from = settings.noise_from[lane], until = settings.noise_until[lane];
  const bool noisy =
      !warming && from != kNoLimit && step >= from && (until == kNoLimit || step < until);
  noise = noisy ? noise_of(settings.noise_type[lane], settings.noise_pct[lane],
                           settings.noise_seed[lane], step)
                : 0.0;
  return was_noisy | (noisy ? kAskNoise : 0);
}

/// What a band asks for by a value. Returns Ask bits. `may_move`: the lane is old enough.
PLATEAU_HD inline int judge_by_band(const Lanes& lanes, std::int64_t lane, double value,
                                    bool may_move, Told& told) noexcept {
  const double target = lanes.settings.target[lane], width = lanes.settings.width[lane];
  const int side = side_of_band(value, target, width);
  if (lanes.state.at_min_steps && side <= 0) lanes.state.at_min_steps[lane] = 0;
  if (side > 0) count_at_min(lanes, lane);
  told.gate = side > 0 ? target * width : target / width;
  told.say(side > 0 ? kAbove : side < 0 ? kBelow : kWithin);
  return side == 0 || !may_move ? 0 : side > 0 ? kAskCut : kAskRaise;
}

/// The rate that a step asks for in place of `rate`.
PLATEAU_HD inline double asked_rate(const Lanes& lanes, std::int64_t lane, std::int64_t group,
                                    int ask, double rate) noexcept {
  const Settings& settings = lanes.settings;
  if (ask & kAskAnew) return lanes.state.start_rate[group];
  if (settings.rule.all == kBand) {
    return ask & kAskRaise ? raise_in_band(rate, settings.growth[lane], settings.max_lr[group])
                           : lower_in_band(rate, settings.growth[lane], settings.min_lr[group]);
  }
  return ask & kAskRaise
             ? raise(rate, settings.factor[lane], settings.max_lr[group], settings.eps[lane])
             : cut(rate, settings.factor[lane], settings.min_lr[group], settings.eps[lane]);
}

/// One more cut is due in a greedy lane. Whether it is one too many with all rates at the floor:
/// then the lane has forgotten all by which it decides. `ask`: of the step so far.
template <class T>
PLATEAU_HD bool begins_anew(const Lanes& lanes, std::int64_t lane, int ask,
                            bool maximize) noexcept {
  const State& state = lanes.state;
  const std::int32_t most = lanes.settings.reset_at_min[lane];
  if (most == kNoLimit) return false;
  const std::int64_t last = lanes.first_group(lane + 1);
  for (std::int64_t group = lanes.first_group(lane); group < last; ++group) {
    const double now = ask & kAskQuiet ? state.rate[group]
                                       : current_rate(state.rate[group], state.published[group]);
    if (asked_rate(lanes, lane, group, kAskCut, now) > lanes.settings.min_lr[group]) return false;
  }
  if (++state.floor_cuts[lane] < most) return false;
  static_cast<T*>(state.best)[lane] = static_cast<T>(maximize ? -kInfinity : kInfinity);
  if (state.recent) state.pushed[lane] = 0;
  state.recent_sum[lane] = 0.0;
  if (state.smooth) {
    state.smooth[lane] = 0.0;
    state.smooth_rest[lane] = 1.0;
  }
  return true;
}

/// What every step asks of a lane's state: read together, since a device waits for each by itself.
template <class T>
struct Seen {
  T best;
  std::int32_t clock;
  std::uint8_t flags;
};
template <class T>
PLATEAU_HD Seen<T> seen_of(const Lanes& lanes, std::int64_t lane) noexcept {
  return {static_cast<T*>(lanes.state.best)[lane], lanes.state.clock[lane], flags_of(lanes, lane)};
}

/// The first half of a step: all but the rates. `step` is the lane's own number of it, from 1, and
/// `seen` its state before it. Returns Ask bits; `metric` becomes what decided.
template <class T>
PLATEAU_HD int begin_step(const Lanes& lanes, std::int64_t lane, const Seen<T>& seen,
                          std::int64_t step, double& metric, Told& told) noexcept {
  const Settings& settings = lanes.settings;
  const std::uint8_t on_nan = is_nan(metric) ? settings.nan[lane] : std::uint8_t{kNanBad};
  const Gate gate = lanes.gate_at(lane);
  const double bar = told.gate = bar_of(seen.best, gate);
  if (seen.flags & kFinished || on_nan == kNanSkip) {
    told.say(seen.flags & kFinished ? kPassed : kSkipped);
    pass_by(lanes, lane);
    return 0;
  }
  if (on_nan == kNanFreeze) {
    told.say(kFroze);
    finish(lanes, lane, kByNan);
    pass_by(lanes, lane);
    return 0;
  }
  const std::int32_t warmup = settings.warmup_steps[lane];
  const bool warming = warms_up(warmup, step);
  const std::int32_t most = settings.max_steps[lane];
  const int always = (warming ? kAskWarmUp : 0) |
                     (most != kNoLimit && step >= most ? kAskFinish : 0) |
                     draw_noise(lanes, lane, step, warming);
  const bool may_cut = step >= settings.min_steps[lane];
  if (on_nan == kNanCut && may_cut) {
    told.say(kCutByNan);
    count_to_stop(lanes, lane, step, metric, warming);
    if (!warming) count_at_min(lanes, lane);
    return kAskCut | always;
  }
  if (!filtered(lanes, lane, metric)) {
    told.say(kCollecting, lanes.state.taken[lane], settings.accumulate[lane]);
    return always;
  }
  const StopReason stop = stop_by_value(settings, lane, metric, gate.maximize, on_nan == kNanBad);
  if (stop != kGoesOn) finish(lanes, lane, stop);
  if (stop == kByDivergence) {
    told.say(kDiverged);
    return always;
  }
  const std::uint8_t rule = settings.rule.all;
  const std::uint8_t counting = settings.counting[lane];
  std::int32_t clock = seen.clock;
  const bool cooling = clock < (counting == kKeras ? -1 : 0);
  // a greedy lane that rests has no eyes for a new best either
  const bool improved = beats(metric, bar, gate.maximize) && !(rule == kGreedy && cooling);
  const bool gain = !improved && beats(metric, seen.best, gate.maximize);
  if (improved) {
    static_cast<T*>(lanes.state.best)[lane] = static_cast<T>(metric);
    if (lanes.state.best_step) lanes.state.best_step[lane] = step;
  }
  count_to_stop(lanes, lane, step, metric, warming);
  const int ask = (improved ? kAskImproved : 0) | always;
  if (warming) {
    told.say(kWarming, step, warmup);
    return ask;
  }
  if (rule == kBand) return ask | judge_by_band(lanes, lane, metric, may_cut, told);
  clock = counting == kKeras ? tick_keras(clock, improved) : tick(clock, improved);
  if (!may_cut) clock = held_back(clock);
  lanes.state.clock[lane] = clock;
  if (improved && lanes.state.at_min_steps) lanes.state.at_min_steps[lane] = 0;
  if (!improved && !cooling) count_at_min(lanes, lane);
  const std::int32_t first = settings.initial_patience[lane];
  const bool is_first = first >= 0 && !(seen.flags & kOnceFired);
  const std::int32_t patience = is_first ? first : settings.patience[lane];
  const std::int32_t bears = borne(patience, counting);
  if (rule == kGreedy) {
    std::int32_t& good = lanes.state.good_steps[lane];
    good = improved ? good + 1 : 0;
    if (improved) {
      told.say(kGood | (is_first ? kAlsoFirst : 0), good, patience);
      return ask | (may_cut && fires(good, bears) ? kAskRaise : 0);
    }
  }
  const bool due = may_cut && fires(clock, bears);
  if (due && rule == kGreedy && begins_anew<T>(lanes, lane, ask, gate.maximize)) {
    told.say(kAnew, lanes.state.floor_cuts[lane], settings.reset_at_min[lane]);
    return ask | kAskAnew;
  }
  if (cooling) {
    told.say(kCooling, clock < 0 ? -clock : 0, settings.cooldown[lane]);
  } else if (improved) {
    told.say(kBetter);
  } else {
    told.say(kBad | (is_first ? kAlsoFirst : 0) | (gain ? kAlsoGain : 0), clock, patience);
  }
  return ask | (due ? kAskCut : 0);
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

/// Writes a rate that was moved down, over the oldest one.
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
  kDoneRaised = 4,
};

/// The second half of a step, for one group of a lane that asked for it. Returns Done bits.
template <class T>
PLATEAU_HD int step_group(const Lanes& lanes, std::int64_t lane, std::int64_t group,
                          std::int64_t step, int ask, double metric) noexcept {
  const Settings& settings = lanes.settings;
  const std::int32_t warmup = settings.warmup_steps[lane];
  double& master = lanes.state.rate[group];
  float& published = lanes.state.published[group];
  // in a warm-up or with noise the published rate is not the master's copy for a good reason
  const bool is_noisy = warms_up(warmup, step) || (ask & kAskQuiet);
  const double old = is_noisy ? master : current_rate(master, published);
  int done = 0;
  if (ask & kAskNoise) master = old;  // which is what noise is put on, whoever wrote it
  if (ask & kAskMove) {
    Cut now;
    now.old = old;
    now.rate = asked_rate(lanes, lane, group, ask, now.old);
    if (now.rate != now.old) {
      write_rate(lanes, group, now.rate);
      done |= now.lowered() ? kDoneReduced : kDoneRaised;
      record<T>(lanes, lane, group, step, now, metric);
    }
    if (asked_rate(lanes, lane, group, kAskCut, now.rate) < now.rate) done |= kDoneRoom;
  }
  if (ask & kAskNoise) published = static_cast<float>(master + master * lanes.state.noise[lane]);
  if (ask & kAskWarmUp) {
    published =
        static_cast<float>(master * warm_up(settings.warmup_start_factor[lane], warmup, step));
  }
  return done;
}

/// end_fire() of a lane whose rates may rise.
PLATEAU_HD inline int end_move(const Lanes& lanes, std::int64_t lane, std::int64_t step, int ask,
                               int done) noexcept {
  const Settings& settings = lanes.settings;
  const State& state = lanes.state;
  const bool reduced = done & kDoneReduced, raised = done & kDoneRaised;
  if (settings.rule.all == kGreedy) {
    const bool rises = ask & kAskRaise;
    const std::int32_t rest = rises ? settings.raise_cooldown[lane] : settings.cooldown[lane];
    const bool moved = rises ? raised : reduced || (ask & kAskAnew);
    state.clock[lane] = after_fire(state.clock[lane], rest, moved, settings.counting[lane]);
    state.good_steps[lane] = 0;
    if (!(ask & kAskCut)) state.floor_cuts[lane] = 0;
  }
  if (reduced) count_cut(lanes, lane, step);
  if (raised) count_up(state.num_increases[lane]);
  return kFired | (reduced ? kReduced : 0) | (raised ? kRaised : 0);
}

/// The end of a step, when all groups of the lane are done. Returns Outcome bits.
PLATEAU_HD inline int end_step(const Lanes& lanes, std::int64_t lane, std::int64_t step, int ask,
                               int done) noexcept {
  int outcome = ask & kAskImproved ? kImproved : 0;
  if (ask & kAskMove) {
    const std::int64_t number = step + lanes.state.born[lane];
    outcome |= lanes.settings.rule.all == kPlateau
                   ? end_fire(lanes, lane, number, done & kDoneReduced, lanes.state.clock[lane])
                   : end_move(lanes, lane, number, ask, done);
    if (lanes.state.flags) {
      const int first = ask & kAskRaise ? 0 : kOnceFired;
      const auto flags = static_cast<std::uint8_t>(lanes.state.flags[lane] | first);
      lanes.state.flags[lane] =
          static_cast<std::uint8_t>(done & kDoneRoom ? flags & ~kAtMin : flags | kAtMin);
    }
    if ((outcome & kReduced) &&
        lanes.state.num_reductions[lane] >= lanes.settings.max_reductions[lane]) {
      finish(lanes, lane, kByMaxReductions);
    }
  }
  if (ask & kAskFinish) finish(lanes, lane, kByMaxSteps);
  return outcome;
}

/// All that comes after the first half, by one thread. Returns Outcome bits.
template <class T>
PLATEAU_HD int complete_step(const Lanes& lanes, std::int64_t lane, std::int64_t step, int ask,
                             double metric) noexcept {
  int done = 0;
  if (ask & kAskRates) {
    const std::int64_t first = lanes.first_group(lane);
    const std::int64_t last = lanes.first_group(lane + 1);
    for (std::int64_t group = first; group < last; ++group) {
      done |= step_group<T>(lanes, lane, group, step, ask, metric);
    }
  }
  return end_step(lanes, lane, step, ask, done);
}

/// A whole step of a lane by one thread. `metric` becomes what decided. Returns Outcome bits.
template <class T>
PLATEAU_HD int step_lane(const Lanes& lanes, std::int64_t lane, std::int64_t step, double& metric,
                         Told& told) noexcept {
  const int ask = begin_step(lanes, lane, seen_of<T>(lanes, lane), step, metric, told);
  const int outcome = complete_step<T>(lanes, lane, step, ask, metric);
  const bool passed = (told.why & kReasonBits) == kPassed;
  if (!passed && (flags_of(lanes, lane) & kFinished)) told.why |= kAlsoFinished;
  return outcome;
}

}  // namespace plateau
