// SPDX-License-Identifier: BSD-3-Clause
// What a step says of itself, worked by hand: every reason, and every bit beside it.
#include <cstdint>
#include <cstdio>
#include <limits>
#include <set>

#include "check.hpp"
#include "held.hpp"
#include "plateau/lane.hpp"

namespace {

using namespace plateau;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::set<int> heard;  // reasons, and bits beside them

/// One lane that is asked why.
struct Lane {
  explicit Lane(const Choices<Vector>& settings) : held({1}, settings) { held.write_rates(1.0); }

  /// Whether a step on `metric` gives these reasons, how far of how much, and this outcome.
  bool tells(double metric, int why, std::int32_t count = 0, std::int32_t limit = 0,
             int outcome = 0) {
    Told told;
    const Lanes lanes = held.lanes();
    const int found = step_lane<double>(lanes, 0, lanes.age(0) + 1, metric, told);
    lanes.count_steps(1);
    gate = told.gate;
    heard.insert(told.why & kReasonBits);
    for (const int also : {kAlsoFinished, kAlsoFirst, kAlsoGain}) {
      if (told.why & also) heard.insert(also);
    }
    return told.why == why && told.count == count && told.limit == limit && found == outcome;
  }

  Held<double> held;
  double gate = 0;
};

Choices<Vector> bearing(std::int32_t patience) {
  Choices<Vector> settings;
  settings.patience = patience;
  settings.threshold = 0.5;
  settings.factor = 0.5;
  return settings;
}

void better_bad_and_cooling_steps_are_counted_against_their_limits() {
  Choices<Vector> settings = bearing(1);
  settings.cooldown = 2;
  Lane lane(settings);
  CHECK(lane.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(lane.gate == kInfinity);
  CHECK(lane.tells(2.0, kBad, 1, 1));
  CHECK(lane.gate == 0.5);
  CHECK(lane.tells(0.75, kBad | kAlsoGain, 2, 1, kFired | kReduced));
  CHECK(lane.tells(2.0, kCooling, 1, 2));
  CHECK(lane.tells(0.25, kCooling, 0, 2, kImproved));
  CHECK(lane.tells(kNan, kBad, 1, 1));
  CHECK(lane.gate == 0.125);
}

void keras_ends_its_cooldown_with_a_step_that_counts() {
  Choices<Vector> settings = bearing(2);
  settings.cooldown = 2;
  settings.counting = kKeras;
  Lane lane(settings);
  CHECK(lane.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(lane.tells(1.0, kBad, 1, 2));
  CHECK(lane.tells(1.0, kBad, 2, 2, kFired | kReduced));
  CHECK(lane.tells(1.0, kCooling, 1, 2));
  CHECK(lane.tells(1.0, kBad, 1, 2));
}

void the_first_patience_bears_until_the_first_cut() {
  Choices<Vector> settings = bearing(0);
  settings.initial_patience = 1;
  Lane lane(settings);
  CHECK(lane.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(lane.tells(0.75, kBad | kAlsoFirst | kAlsoGain, 1, 1));
  CHECK(lane.tells(1.0, kBad | kAlsoFirst, 2, 1, kFired | kReduced));
  CHECK(lane.tells(1.0, kBad, 1, 0, kFired | kReduced));
}

void a_warm_up_counts_its_steps() {
  Choices<Vector> settings = bearing(0);
  settings.warmup_steps = 2;
  Lane lane(settings);
  CHECK(lane.tells(1.0, kWarming, 1, 2, kImproved));
  CHECK(lane.held.state.published[0] == 0.5F);
  CHECK(lane.tells(1.0, kWarming, 2, 2));
  CHECK(lane.held.state.published[0] == 1.0F);
  CHECK(lane.tells(1.0, kBad, 1, 0, kFired | kReduced));
  CHECK(lane.held.state.rate[0] == 0.5);
}

void values_are_collected_until_there_are_enough() {
  Choices<Vector> settings = bearing(0);
  settings.accumulate = 3;
  Lane lane(settings);
  CHECK(lane.tells(1.0, kCollecting, 1, 3));
  CHECK(lane.tells(2.0, kCollecting, 2, 3));
  CHECK(lane.tells(6.0, kBetter, 0, 0, kImproved));
  CHECK(lane.held.state.best[0] == 3.0);
  CHECK(lane.tells(1.0, kCollecting, 1, 3));
  CHECK(lane.gate == 1.5);
}

void nan_is_a_bad_step_or_none_or_a_cut_or_the_end() {
  Choices<Vector> settings = bearing(1);
  Lane bad(settings);
  CHECK(bad.tells(kNan, kBad, 1, 1));
  settings.nan = kNanSkip;
  Lane skip(settings);
  CHECK(skip.tells(kNan, kSkipped));
  CHECK(skip.held.lanes().age(0) == 0);
  settings.nan = kNanCut;
  Lane cut(settings);
  CHECK(cut.tells(kNan, kCutByNan, 0, 0, kFired | kReduced));
  settings.nan = kNanFreeze;
  Lane freeze(settings);
  CHECK(freeze.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(freeze.tells(kNan, kFroze | kAlsoFinished));
  CHECK(freeze.tells(0.0, kPassed));
  CHECK(freeze.held.state.best[0] == 1.0);
  CHECK(freeze.held.lanes().age(0) == 1);
}

void a_lane_is_finished_by_its_last_reduction() {
  Choices<Vector> settings = bearing(0);
  settings.max_reductions = 2;
  Lane lane(settings);
  CHECK(lane.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(lane.tells(1.0, kBad, 1, 0, kFired | kReduced));
  CHECK(lane.tells(1.0, kBad | kAlsoFinished, 1, 0, kFired | kReduced));
  CHECK(lane.tells(0.0, kPassed));
  CHECK(lane.held.state.rate[0] == 0.25);
}

void a_lane_is_finished_by_bad_steps_at_its_floor() {
  Choices<Vector> settings = bearing(0);
  settings.min_lr = 1.0;
  settings.patience_at_min = 2;
  Lane lane(settings);
  CHECK(lane.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(lane.tells(1.0, kBad, 1, 0, kFired));  // this cut finds the floor
  CHECK(lane.tells(1.0, kBad, 1, 0, kFired));
  CHECK(lane.tells(0.25, kBetter, 0, 0, kImproved));
  CHECK(lane.tells(1.0, kBad, 1, 0, kFired));
  CHECK(lane.tells(1.0, kBad | kAlsoFinished, 1, 0, kFired));
  CHECK(lane.tells(1.0, kPassed));
}

/// Whether a step on `metric` finishes the lane for this reason.
bool ends(Lane& lane, double metric, StopReason reason) {
  Told told;
  const Lanes lanes = lane.held.lanes();
  step_lane<double>(lanes, 0, lanes.age(0) + 1, metric, told);
  lanes.count_steps(1);
  return (told.why & kAlsoFinished) && lanes.state.stop_reason[0] == reason;
}

Choices<Vector> ending(double target, double bound) {
  Choices<Vector> settings = bearing(9);
  settings.stop_at = target;
  settings.diverge_at = bound;
  return settings;
}

void a_metric_past_its_bound_or_not_finite_counts_for_nothing_but_the_end() {
  for (const double metric : {3.0, kInfinity, -kInfinity, kNan}) {
    Lane lane(ending(-1.0, 2.0));
    CHECK(lane.tells(2.0, kBetter, 0, 0, kImproved));  // at the bound, not past it
    CHECK(lane.tells(metric, kDiverged | kAlsoFinished));
    CHECK(lane.held.state.best[0] == 2.0 && lane.held.state.clock[0] == 0);
    CHECK(lane.held.state.stop_reason[0] == kByDivergence);
    CHECK(lane.held.lanes().age(0) == 2);
    CHECK(lane.tells(0.0, kPassed));
  }
}

void nan_diverges_unless_it_has_a_rule_of_its_own() {
  Choices<Vector> settings = ending(kInfinity, 2.0);
  settings.nan = kNanSkip;
  Lane skip(settings);
  CHECK(skip.tells(kNan, kSkipped));
  settings.nan = kNanCut;
  Lane cut(settings);
  CHECK(cut.tells(kNan, kCutByNan, 0, 0, kFired | kReduced));
  settings.min_steps = 9;
  Lane bad(settings);
  CHECK(bad.tells(kNan, kBad, 1, 9));
  settings.nan = kNanFreeze;
  Lane freeze(settings);
  CHECK(ends(freeze, kNan, kByNan));
}

void a_target_is_reached_by_a_metric_that_is_better_than_it() {
  Lane lane(ending(0.5, kInfinity));
  CHECK(lane.tells(0.5, kBetter, 0, 0, kImproved));
  CHECK(lane.tells(0.125, kBetter | kAlsoFinished, 0, 0, kImproved));
  CHECK(lane.held.state.stop_reason[0] == kByTarget);
  CHECK(lane.held.state.best[0] == 0.125 && lane.held.state.best_step[0] == 2);
  Lane both(ending(2.0, 0.5));  // past the bound too
  CHECK(ends(both, 1.0, kByTarget));
  Lane infinite(ending(2.0, 3.0));
  CHECK(ends(infinite, -kInfinity, kByDivergence));
}

void bad_steps_in_a_row_by_their_own_gate_finish_a_lane() {
  Choices<Vector> settings = bearing(9);
  settings.stop_patience = 2;
  settings.stop_threshold = 0.25;
  Lane lane(settings);
  CHECK(lane.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(lane.tells(0.75, kBad | kAlsoGain, 1, 9));
  CHECK(lane.tells(0.625, kBad | kAlsoGain, 2, 9));  // better by the other gate
  CHECK(lane.tells(0.25, kBetter, 0, 0, kImproved));
  CHECK(lane.held.state.best_step[0] == 4);
  CHECK(lane.tells(0.25, kBad, 1, 9));
  CHECK(lane.tells(0.25, kBad | kAlsoFinished, 2, 9));
  CHECK(lane.held.state.stop_reason[0] == kByPatience);
}

void the_first_reason_in_the_order_of_a_step_stays() {
  Choices<Vector> settings = bearing(0);
  settings.min_lr = 1.0;
  settings.patience_at_min = 1;
  settings.max_steps = 3;
  Lane floor(settings);
  CHECK(floor.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(floor.tells(1.0, kBad, 1, 0, kFired));
  CHECK(ends(floor, 1.0, kAtFloor));
  settings.stop_patience = 2;
  Lane patience(settings);
  CHECK(patience.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(patience.tells(1.0, kBad, 1, 0, kFired));
  CHECK(ends(patience, 1.0, kByPatience));
  settings = bearing(0);
  settings.max_reductions = 1;
  settings.max_steps = 2;
  Lane reductions(settings);
  CHECK(reductions.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(ends(reductions, 1.0, kByMaxReductions));
  Lane steps(settings);
  CHECK(steps.tells(1.0, kBetter, 0, 0, kImproved));
  CHECK(ends(steps, 0.25, kByMaxSteps));
}

void a_band_tells_on_which_side_a_value_lies() {
  Choices<Vector> settings = bearing(0);
  settings.rule = kBand;
  settings.target = 1.0;
  settings.growth = 2.0;
  settings.max_lr = 1.0;
  Lane lane(settings);
  CHECK(lane.tells(3.0, kAbove, 0, 0, kImproved | kFired | kReduced));
  CHECK(lane.gate == 2.0 && lane.held.state.rate[0] == 0.5);
  CHECK(lane.tells(2.0, kWithin));
  CHECK(lane.gate == 0.5);
  CHECK(lane.tells(kNan, kWithin));
  CHECK(lane.tells(0.25, kBelow, 0, 0, kImproved | kFired | kRaised));
  CHECK(lane.tells(0.25, kBelow, 0, 0, kFired));  // at its ceiling
  CHECK(lane.tells(0.0, kWithin, 0, 0, kImproved));
  CHECK(lane.held.state.clock[0] == 0);
}

void a_greedy_lane_counts_its_good_steps_too() {
  Choices<Vector> settings = bearing(1);
  settings.rule = kGreedy;
  settings.threshold = 0.0;
  settings.raise_cooldown = 1;
  Lane lane(settings);
  CHECK(lane.tells(8.0, kGood, 1, 1, kImproved));
  CHECK(lane.tells(4.0, kGood, 2, 1, kImproved | kFired | kRaised));
  CHECK(lane.held.state.rate[0] == 2.0 && lane.held.state.num_increases[0] == 1);
  CHECK(lane.tells(2.0, kCooling, 0, 0));
  CHECK(lane.held.state.best[0] == 4.0);
  CHECK(lane.tells(4.0, kBad, 1, 1));
  CHECK(lane.tells(4.0, kBad, 2, 1, kFired | kReduced));
  CHECK(lane.held.state.rate[0] == 1.0);
}

void a_greedy_lane_begins_anew_after_its_last_cut_at_the_floor() {
  Choices<Vector> settings = bearing(0);
  settings.rule = kGreedy;
  settings.min_lr = 0.5;
  settings.reset_at_min = 2;
  settings.cooldown = 1;
  Lane lane(settings);
  lane.held.state.start_rate[0] = 1.0;
  CHECK(lane.tells(kNan, kBad, 1, 0, kFired | kReduced));
  CHECK(lane.tells(1.0, kCooling, 0, 1));
  CHECK(lane.tells(kNan, kAnew, 2, 2, kFired | kRaised));
  CHECK(lane.held.state.rate[0] == 1.0 && lane.held.state.clock[0] == -1);
  CHECK(lane.held.state.floor_cuts[0] == 0 && lane.held.state.best[0] == kInfinity);
}

void every_reason_and_bit_was_heard() {
  std::set<int> all{kAlsoFinished, kAlsoFirst, kAlsoGain};
  int code = 0;
  all.insert(code);
  for (const char* at = kReasons; *at; ++at) {
    if (*at == ' ') all.insert(++code);
  }
  CHECK(code == kAnew);
  CHECK(heard == all);
}

}  // namespace

int main() {
  better_bad_and_cooling_steps_are_counted_against_their_limits();
  keras_ends_its_cooldown_with_a_step_that_counts();
  the_first_patience_bears_until_the_first_cut();
  a_warm_up_counts_its_steps();
  values_are_collected_until_there_are_enough();
  nan_is_a_bad_step_or_none_or_a_cut_or_the_end();
  a_lane_is_finished_by_its_last_reduction();
  a_lane_is_finished_by_bad_steps_at_its_floor();
  a_metric_past_its_bound_or_not_finite_counts_for_nothing_but_the_end();
  nan_diverges_unless_it_has_a_rule_of_its_own();
  a_target_is_reached_by_a_metric_that_is_better_than_it();
  bad_steps_in_a_row_by_their_own_gate_finish_a_lane();
  the_first_reason_in_the_order_of_a_step_stays();
  a_band_tells_on_which_side_a_value_lies();
  a_greedy_lane_counts_its_good_steps_too();
  a_greedy_lane_begins_anew_after_its_last_cut_at_the_floor();
  every_reason_and_bit_was_heard();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
