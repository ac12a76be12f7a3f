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

void every_reason_and_bit_was_heard() {
  std::set<int> all{kAlsoFinished, kAlsoFirst, kAlsoGain};
  int code = 0;
  all.insert(code);
  for (const char* at = kReasons; *at; ++at) {
    if (*at == ' ') all.insert(++code);
  }
  CHECK(code == kCutByNan);
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
  every_reason_and_bit_was_heard();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
