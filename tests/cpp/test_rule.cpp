// SPDX-License-Identifier: BSD-3-Clause
// The rule, function by function, worked by hand.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>

#include "check.hpp"
#include "plateau/noise.hpp"
#include "plateau/rule.hpp"
#include "plateau/step.hpp"

namespace {

using namespace plateau;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

void the_gate_is_strict_and_never_beaten_by_nan() {
  const Gate less{1.0 - 0.5, 0.0, false};
  CHECK(improves(0.49, 1.0, less));
  CHECK(!improves(0.5, 1.0, less));
  CHECK(!improves(kNan, 1.0, less));
  CHECK(improves(0.5, kInf, less));
  CHECK(!improves(kInf, kInf, less));
  CHECK(improves(-kInf, 1.0, less));
  const Gate more{1.0, 0.25, true};
  CHECK(improves(1.26, 1.0, more));
  CHECK(!improves(1.25, 1.0, more));
  CHECK(!improves(kNan, -kInf, more));
  const Gate unbeatable{0.0, 0.0, false};  // 0 * inf is NaN
  CHECK(!improves(-kInf, kInf, unbeatable));
}

void the_gate_is_rounded_after_each_operation() {
  // A fused multiply-add would keep the low bits of the product and give 2^-54 here, not 0.
  const double x = 1.0 + 0x1p-27;
  const Gate gate{x, -(1.0 + 0x1p-26), true};
  CHECK(!improves(0.0, x, gate));
  CHECK(improves(0x1p-60, x, gate));
}

void the_clock_counts_bad_steps_up_and_cooldown_back() {
  CHECK(tick(0, false) == 1);
  CHECK(tick(7, false) == 8);
  CHECK(tick(7, true) == 0);
  CHECK(tick(-3, false) == -2);
  CHECK(tick(-3, true) == -2);
  CHECK(tick(-1, false) == 0);
  CHECK(!fires(3, 3));
  CHECK(fires(4, 3));
  CHECK(fires(1, 0));
}

void a_cut_respects_floor_and_eps() {
  CHECK(cut(1.0, 0.5, 0.0, 1e-8) == 0.5);
  CHECK(cut(1.0, 0.5, 0.75, 1e-8) == 0.75);
  CHECK(cut(1.0, 0.5, 2.0, 1e-8) == 1.0);
  CHECK(cut(1.0, 0.5, 0.0, 0.5) == 1.0);
  CHECK(cut(0.0, 0.5, 0.0, 0.0) == 0.0);
  CHECK(std::isnan(cut(kNan, 0.5, 0.0, 0.0)));
}

void a_written_rate_wins_over_the_master() {
  CHECK(current_rate(0.1, 0.1F) == 0.1);
  CHECK(current_rate(0.1, 0.5F) == 0.5);
}

void settings_make_the_gate_that_they_say() {
  CHECK(bar_of(2.0, gate_of(kMin, 0.25, kRel, 0.5)) == 1.0);
  CHECK(bar_of(2.0, gate_of(kMax, 0.25, kRel, 0.5)) == 3.0);
  CHECK(bar_of(2.0, gate_of(kMin, 0.25, kAbs, 0.5)) == 1.25);
  CHECK(bar_of(2.0, gate_of(kMax, 0.25, kAbs, 0.5)) == 2.75);
  CHECK(bar_of(-2.0, gate_of(kMin, 0.25, kRel, 0.0)) == -1.5);  // torch's: on the wrong side
  CHECK(bar_of(-2.0, gate_of(kMin, 0.25, kRelSafe, 0.0)) == -2.5);
  CHECK(bar_of(-2.0, gate_of(kMax, 0.25, kRelSafe, 0.0)) == -1.5);
  CHECK(bar_of(kInf, gate_of(kMin, 0.25, kRelSafe, 0.0)) == kInf);
  CHECK(!gate_of(kMin, 0.25, kAbs, 0.5).maximize);
  CHECK(gate_of(kMax, 0.25, kAbs, 0.5).maximize);
}

void keras_counts_the_step_on_which_a_cooldown_ends() {
  CHECK(tick_keras(-2, false) == -1);
  CHECK(tick_keras(-2, true) == -1);
  CHECK(tick_keras(-1, false) == 1);
  CHECK(tick_keras(-1, true) == 0);
  CHECK(tick_keras(0, false) == 1);
  CHECK(tick_keras(7, true) == 0);
}

void keras_and_optax_bear_one_bad_step_less() {
  CHECK(borne(3, kTorch) == 3);
  CHECK(borne(3, kKeras) == 2);
  CHECK(borne(3, kOptax) == 2);
  CHECK(borne(0, kKeras) == 0);
}

void a_cooldown_follows_firing_but_for_keras_only_a_cut() {
  CHECK(after_fire(5, 2, true, kTorch) == -2);
  CHECK(after_fire(5, 2, false, kTorch) == -2);
  CHECK(after_fire(5, 2, false, kOptax) == -2);
  CHECK(after_fire(5, 2, true, kKeras) == -2);
  CHECK(after_fire(5, 2, false, kKeras) == 5);
}

void no_count_goes_past_the_largest_patience_but_to_fire() {
  constexpr auto kLast = static_cast<std::int32_t>(kMost);
  CHECK(tick_keras(kLast - 1, false) == kLast);
  CHECK(tick_keras(kLast, false) == kLast);
  CHECK(tick_keras(kLast, true) == 0);
  CHECK(fires(kLast, borne(kLast, kKeras)));
  CHECK(!fires(kLast - 1, borne(kLast, kKeras)));
  CHECK(tick(kLast, false) == std::numeric_limits<std::int32_t>::max());
  CHECK(fires(tick(kLast, false), borne(kLast, kTorch)));
  CHECK(!fires(kLast, borne(kLast, kTorch)));
}

void averages_are_corrected_for_their_start() {
  double smooth = 0.0, rest = 1.0;
  CHECK(smoothed(3.0, 0.5, smooth, rest) == 3.0);
  CHECK(smooth == 1.5 && rest == 0.5);
  CHECK(smoothed(6.0, 0.5, smooth, rest) == 5.0);  // (3 / 4 + 6 / 2) / (1 - 1 / 4)
}

void a_warm_up_rises_in_a_straight_line() {
  CHECK(warm_up(0.0, 4, 1) == 0.25);
  CHECK(warm_up(0.5, 4, 2) == 0.75);
  CHECK(warm_up(0.5, 4, 4) == 1.0);
  CHECK(warm_up(0.5, 0, 1) == 1.0);
}

void a_raise_respects_ceiling_and_eps() {
  CHECK(raise(1.0, 0.5, 9.0, 0.0) == 2.0);
  CHECK(raise(1.0, 0.5, 1.5, 0.0) == 1.5);
  CHECK(raise(1.0, 0.5, 1.5, 0.5) == 1.0);
  CHECK(raise(2.0, 0.5, 1.5, 0.0) == 2.0);  // a ceiling below the rate never lowers it
}

void a_band_has_two_edges_and_brings_rates_back_to_their_bounds() {
  CHECK(side_of_band(2.5, 1.0, 2.0) == 1);
  CHECK(side_of_band(2.0, 1.0, 2.0) == 0);
  CHECK(side_of_band(0.5, 1.0, 2.0) == 0);
  CHECK(side_of_band(0.25, 1.0, 2.0) == -1);
  CHECK(side_of_band(0.0, 1.0, 2.0) == 0);
  CHECK(side_of_band(-1.0, 1.0, 2.0) == 0);
  CHECK(side_of_band(kNan, 1.0, 2.0) == 0);
  CHECK(lower_in_band(3.0, 1.5, 0.0) == 2.0);
  CHECK(lower_in_band(1.0, 1.5, 2.0) == 2.0);
  CHECK(raise_in_band(2.0, 1.5, 9.0) == 3.0);
  CHECK(raise_in_band(2.0, 1.5, 1.0) == 1.0);
}

void noise_is_drawn_from_the_published_numbers_by_the_bell() {
  const std::uint64_t published[] = {6457827717110365317U, 3203168211198807973U,
                                     9817491932198370423U};
  for (std::uint64_t i = 0; i < 3; ++i) CHECK(random_bits(1234567, i + 1) == published[i]);
  for (double x = -1.0; x <= 1.0; x += 0.125) {
    CHECK(std::fabs(bell(x) - std::exp(-x * x / 2)) < 3e-16);
  }
  for (std::int64_t step = 1; step < 2000; ++step) {
    for (const std::uint8_t type : {kNormal, kUniform}) {
      CHECK(std::fabs(noise_of(type, 0.25, 42, step)) <= 0.25);
    }
  }
}

void small_floats_are_read_exactly() {
  const std::uint16_t half[] = {0x3C00, 0x8000, 0x0001, 0x7BFF, 0xFC00, 0x3555};
  const double expected[] = {1.0, -0.0, 0x1p-24, 65504.0, -kInf, 0.333251953125};
  for (int i = 0; i < 6; ++i) {
    CHECK(read(&half[i], Dtype::kFloat16) == expected[i]);
    CHECK(std::signbit(read(&half[i], Dtype::kFloat16)) == std::signbit(expected[i]));
  }
  const std::uint16_t nan = 0x7E00;
  CHECK(std::isnan(read(&nan, Dtype::kFloat16)));
  const std::uint16_t brain = 0xC040;
  CHECK(read(&brain, Dtype::kBFloat16) == -3.0);
  const std::uint64_t wide = (1ULL << 63) + 1025;
  CHECK(read(&wide, Dtype::kUInt64) == 9223372036854777856.0);
}

}  // namespace

int main() {
  the_gate_is_strict_and_never_beaten_by_nan();
  the_gate_is_rounded_after_each_operation();
  the_clock_counts_bad_steps_up_and_cooldown_back();
  a_cut_respects_floor_and_eps();
  a_written_rate_wins_over_the_master();
  settings_make_the_gate_that_they_say();
  keras_counts_the_step_on_which_a_cooldown_ends();
  keras_and_optax_bear_one_bad_step_less();
  a_cooldown_follows_firing_but_for_keras_only_a_cut();
  no_count_goes_past_the_largest_patience_but_to_fire();
  averages_are_corrected_for_their_start();
  a_warm_up_rises_in_a_straight_line();
  a_raise_respects_ceiling_and_eps();
  a_band_has_two_edges_and_brings_rates_back_to_their_bounds();
  noise_is_drawn_from_the_published_numbers_by_the_bell();
  small_floats_are_read_exactly();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
