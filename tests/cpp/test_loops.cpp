// SPDX-License-Identifier: BSD-3-Clause
// The host's loops on batches worked by hand.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <vector>

#include "check.hpp"
#include "drawn.hpp"
#include "held.hpp"
#include "plateau/replay.hpp"
#include "plateau/step.hpp"
#include "rows.hpp"

namespace {

using namespace plateau;

using Numbers = std::vector<double>;

constexpr auto kLast = static_cast<std::int32_t>(kMost);
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Stepped step(Held<double>& held, const Numbers& metrics) {
  return step_cpu(held.lanes(), Metrics{metrics.data(), 1, Dtype::kFloat64});
}

Stepped step_lanes(Held<double>& held, const Numbers& metrics) {
  return step_lanes_cpu(held.lanes(), Metrics{metrics.data(), 1, Dtype::kFloat64}, nullptr);
}

Choices<Vector> halving(std::int32_t patience, std::int32_t cooldown = 0) {
  Choices<Vector> settings;
  settings.factor = 0.5;
  settings.patience = patience;
  settings.cooldown = cooldown;
  return settings;
}

void a_flat_batch_is_cut_on_step_three_and_cools_for_two() {
  for (const std::int64_t n : {0, 1, 511, 512, 513, 2000}) {
    Held<double> held({n}, halving(1, 2));
    held.write_rates(1.0);
    const Numbers flat(static_cast<std::size_t>(n), 1.0);
    const std::int32_t clocks[] = {0, 1, -2, -1, 0, 1, -2};
    for (int number = 0; number < 7; ++number) {
      const bool cuts = number == 2 || number == 6;
      const Stepped done = step(held, flat);
      CHECK(done.reduced == (cuts ? n : 0));
      CHECK(done.improved == (number == 0 && n > 0));
      for (std::size_t i = 0; i < flat.size(); ++i) {
        CHECK(held.state.best[i] == 1.0);
        CHECK(held.state.clock[i] == clocks[number]);
        CHECK(held.state.outcome[i] == (number == 0 ? kImproved : cuts ? kReduced | kFired : 0));
        CHECK(held.state.rate[i] == (number < 2 ? 1.0 : number < 6 ? 0.5 : 0.25));
        CHECK(held.state.published[i] == static_cast<float>(held.state.rate[i]));
        CHECK(held.state.num_reductions[i] == (number < 2 ? 0 : number < 6 ? 1 : 2));
        CHECK(held.state.last_cut[i] == (number < 2 ? 0 : number < 6 ? 3 : 7));
      }
    }
    CHECK(held.state.num_steps == std::vector<std::int64_t>(held.size(Of::kCount), 7));
    CHECK(held.size(Of::kCount) == static_cast<std::size_t>((n + 255) / 256));
  }
}

void strides_are_followed() {
  Numbers wide(2100);
  for (std::size_t i = 0; i < wide.size(); ++i) wide[i] = static_cast<double>(i);
  Held<double> held({700}), backwards({700});
  step_cpu(held.lanes(), Metrics{wide.data(), 3, Dtype::kFloat64});
  step_cpu(backwards.lanes(), Metrics{wide.data() + 699, -1, Dtype::kFloat64});
  for (std::size_t i = 0; i < 700; ++i) {
    CHECK(held.state.best[i] == static_cast<double>(3 * i));
    CHECK(backwards.state.best[i] == static_cast<double>(699 - i));
  }
}

void every_group_of_a_lane_is_cut() {
  Held<double> held({2, {1, 2}}, halving(0));
  held.state.rate = {1.0, 2.0, 4.0};
  held.state.published = {1.0F, 2.0F, 4.0F};
  step(held, {1.0, 1.0});
  CHECK(step(held, {0.5, 1.0}).reduced == 1);
  CHECK((held.state.rate == Numbers{1.0, 1.0, 2.0}));
  CHECK((held.state.published == std::vector<float>{1.0F, 1.0F, 2.0F}));
  CHECK((held.state.num_reductions == std::vector<std::int32_t>{0, 1}));
}

/// Whether lane i is one of the first `cut` lanes but for `spared`.
bool is_cut(std::size_t i, std::size_t spared, std::size_t cut) {
  return i != spared && i - (i > spared) < cut;
}

/// Lanes of which `cut` of the first block are cut, all but the first of them, for which it is in
/// vain. Before that somebody wrote its published rate and that of the lane which is `spared`.
Held<double> with_cut_neighbours(std::size_t spared, std::size_t cut,
                                 Stepped (*step_by)(Held<double>&, const Numbers&)) {
  Held<double> held({700}, halving(0));
  held.write_rates(1.0);
  Numbers metrics(700, 1.0);
  step_by(held, metrics);
  held.state.published[spared] = 0.3F;
  held.state.published[spared ? 0 : 1] = 1e-9F;  // half of it is within eps
  for (std::size_t i = 0; i < 700; ++i) {
    if (!is_cut(i, spared, cut)) metrics[i] = 0.5;
  }
  CHECK(step_by(held, metrics).reduced == static_cast<std::int64_t>(cut) - 1);
  return held;
}

void a_lane_does_not_depend_on_how_many_neighbours_are_cut() {
  for (const std::size_t spared : {0u, 63u}) {
    for (const std::size_t cut : {1u, 2u, 63u, 64u, 65u, 200u, 510u, 511u}) {
      const Held<double> held = with_cut_neighbours(spared, cut, step);
      const std::size_t in_vain = spared ? 0 : 1;
      for (std::size_t i = 0; i < 700; ++i) {
        const bool fires = is_cut(i, spared, cut), lowered = fires && i != in_vain;
        const float written = i == spared ? 0.3F : i == in_vain ? 1e-9F : 1.0F;
        CHECK(held.state.rate[i] == (lowered ? 0.5 : 1.0));
        CHECK(held.state.published[i] == (lowered ? 0.5F : written));
        CHECK(held.state.outcome[i] == (lowered ? kFired | kReduced : fires ? kFired : kImproved));
      }
      CHECK_SAME(held, with_cut_neighbours(spared, cut, step_lanes));
    }
  }
}

void a_written_rate_becomes_the_master_when_it_is_cut() {
  for (const auto step_by : {step, step_lanes}) {
    Held<double> held = with_cut_neighbours(63, 64, step_by);
    step_by(held, Numbers(700, 1.0));
    CHECK(held.state.rate[63] == static_cast<double>(0.3F) * 0.5);
    CHECK(held.state.published[63] == static_cast<float>(held.state.rate[63]));
  }
}

void a_masked_lane_keeps_its_state_and_does_not_age() {
  Held<double> held({3}, halving(0));
  held.write_rates(1.0);
  step_lanes(held, {1.0, 1.0, 1.0});
  const Numbers metrics = {2.0, 0.5, 2.0};
  const std::uint8_t active[] = {1, 0, 255};
  const Stepped done =
      step_lanes_cpu(held.lanes(), Metrics{metrics.data(), 1, Dtype::kFloat64}, active);
  CHECK(done.reduced == 2 && !done.improved);
  CHECK(held.state.best == Numbers(3, 1.0));
  CHECK((held.state.rate == Numbers{0.5, 1.0, 0.5}));
  CHECK((held.state.outcome == std::vector<std::uint8_t>{kFired | kReduced, 0, kFired | kReduced}));
  step_lanes(held, {2.0, 2.0, 2.0});
  CHECK((held.state.rate == Numbers{0.25, 0.5, 0.25}));
  CHECK((held.state.last_cut == std::vector<std::int64_t>{3, 3, 3}));
  CHECK((held.state.born == std::vector<std::int64_t>{0, 1, 0}));
}

void keras_count_at_the_floor_stops_at_the_largest_patience() {
  for (const std::int32_t patience : {0, 1, kLast}) {
    Choices<Vector> settings = halving(patience);
    settings.counting = kKeras;
    settings.min_lr = 1.0;
    Held<double> held({3}, settings);
    held.write_rates(1.0);
    held.state.best = {0.0, 0.0, 0.0};
    held.state.clock = {kLast, kLast - 1, kLast};
    for (int number = 0; number < 3; ++number) {
      step_lanes(held, {1.0, kNan, number < 2 ? 1.0 : -1.0});
      CHECK(held.state.clock[0] == kLast && held.state.clock[1] == kLast);
      CHECK(held.state.outcome[0] == kFired && held.state.outcome[1] == kFired);
    }
    CHECK(held.state.clock[2] == 0);
    CHECK(held.state.outcome[2] == kImproved);
    CHECK(held.state.rate == Numbers(3, 1.0));
  }
}

void a_lane_too_young_to_fire_counts_no_further_than_the_longest_patience() {
  for (const std::int64_t n : {1, 300}) {
    Choices<Vector> settings = halving(0);
    settings.min_steps = 4;
    Held<double> held({n}, settings);
    held.write_rates(1.0);
    held.state.best.assign(held.state.best.size(), 0.0);
    held.state.clock.assign(held.state.clock.size(), kLast - 1);
    const Numbers flat(held.state.best.size(), 1.0);
    for (int number = 1; number <= 4; ++number) {
      CHECK(step_lanes(held, flat).reduced == (number < 4 ? 0 : n));
      for (const std::int32_t clock : held.state.clock) CHECK(clock == (number < 4 ? kLast : 0));
    }
  }
}

void the_longest_count_and_cooldown_of_all_loops_fire_and_end() {
  for (const auto step_by : {step, step_lanes}) {
    Held<double> held({2}, halving(kLast, kLast));
    held.write_rates(1.0);
    held.state.best = {0.0, 0.0};
    held.state.clock = {kLast, kLast - 1};
    step_by(held, {1.0, 1.0});
    CHECK((held.state.clock == std::vector<std::int32_t>{-kLast, kLast}));
    step_by(held, {1.0, 1.0});
    CHECK((held.state.clock == std::vector<std::int32_t>{-kLast + 1, -kLast}));
    CHECK((held.state.rate == Numbers{0.5, 0.5}));
  }
}

void a_cut_that_was_first_is_written_down_and_the_steps_wasted_till_then() {
  Held<double> held({2}, halving(1));
  held.write_rates(1.0);
  const Numbers history = {1.0, 1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 0.1, 0.5, 0.01, 0.5, 0.01, 0.5, 0.0};
  auto rows = rows_for<double>({2}, 7, Tell::kSummary);
  replay_cpu(held.lanes(), {{history.data(), 1, Dtype::kFloat64}, 2, 7}, record_of(rows), false, 1);
  CHECK((rows.first_cut == std::vector<std::int32_t>{4, 3}));
  CHECK((rows.wasted == std::vector<std::int32_t>{2, 2}));
}

void nothing_to_replay_writes_nothing() {
  Held<double> held = drawn<double>({{2}});
  const Held<double> before = held;
  auto rows = rows_for<double>({2}, 1, Tell::kReasons);
  rows.first_cut = {8, 9};
  replay_cpu(held.lanes(), {{nullptr, 0, Dtype::kFloat64}, 1, 0}, record_of(rows), false, 4);
  CHECK_SAME(held, before);
  CHECK((rows.first_cut == std::vector<std::int32_t>{8, 9}));
}

void a_replay_that_is_told_to_stop_takes_no_more_lanes() {
  const int n = 1000;  // several tiles
  const Numbers history(7, 1.0);
  for (const int asked : {0, 2}) {
    Held<double> held({n}, halving(1));
    held.write_rates(1.0);
    auto rows = rows_for<double>({n}, 7, Tell::kSummary);
    rows.first_cut.assign(n, -1);
    int left = asked;
    replay_cpu(held.lanes(), {{history.data(), 0, Dtype::kFloat64}, 1, 7}, record_of(rows), false,
               1, [&] { return left-- > 0; });
    const auto taken = n - std::count(rows.first_cut.begin(), rows.first_cut.end(), -1);
    CHECK(taken == (asked ? 512 : 0));
    CHECK(left == -1);
  }
}

}  // namespace

int main() {
  a_flat_batch_is_cut_on_step_three_and_cools_for_two();
  strides_are_followed();
  every_group_of_a_lane_is_cut();
  a_lane_does_not_depend_on_how_many_neighbours_are_cut();
  a_written_rate_becomes_the_master_when_it_is_cut();
  a_masked_lane_keeps_its_state_and_does_not_age();
  keras_count_at_the_floor_stops_at_the_largest_patience();
  a_lane_too_young_to_fire_counts_no_further_than_the_longest_patience();
  the_longest_count_and_cooldown_of_all_loops_fire_and_end();
  a_cut_that_was_first_is_written_down_and_the_steps_wasted_till_then();
  nothing_to_replay_writes_nothing();
  a_replay_that_is_told_to_stop_takes_no_more_lanes();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
