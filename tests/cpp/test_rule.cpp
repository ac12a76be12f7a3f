// SPDX-License-Identifier: BSD-3-Clause
// The rule and the host loop with no Python: ctest runs this.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <vector>

#include "check.hpp"
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

/// A batch with storage of its own.
struct Batch {
  explicit Batch(std::int64_t n)
      : best(static_cast<std::size_t>(n), kInf),
        clock(best.size()),
        outcome(best.size()),
        num_reductions(best.size()),
        rate(best.size(), 1.0),
        published(best.size(), 1.0F) {
    Settings settings;
    settings.gate_scale.all = 1.0 - 1e-4;
    settings.factor.all = 0.5;
    settings.patience.all = 1;
    settings.cooldown.all = 2;
    lanes = Lanes{n,
                  Dtype::kFloat64,
                  best.data(),
                  clock.data(),
                  outcome.data(),
                  num_reductions.data(),
                  &num_steps,
                  rate.data(),
                  published.data(),
                  nullptr,
                  n,
                  settings};
  }

  std::vector<double> best;
  std::vector<std::int32_t> clock;
  std::vector<std::uint8_t> outcome;
  std::vector<std::int32_t> num_reductions;
  std::int64_t num_steps = 0;
  std::vector<double> rate;
  std::vector<float> published;
  Lanes lanes{};
};

void a_flat_batch_is_cut_on_step_three_and_cools_for_two() {
  for (const std::int64_t n : {0, 1, 511, 512, 513, 2000}) {
    Batch batch(n);
    const std::vector<float> flat(static_cast<std::size_t>(n), 1.0F);
    const Metrics metrics{flat.data(), 1, Dtype::kFloat32};
    const std::int32_t clocks[] = {0, 1, -2, -1, 0, 1, -2};
    for (int step = 0; step < 7; ++step) {
      const bool cuts = step == 2 || step == 6;
      CHECK(step_cpu(batch.lanes, metrics) == (cuts ? n : 0));
      for (std::size_t i = 0; i < flat.size(); ++i) {
        CHECK(batch.best[i] == 1.0);
        CHECK(batch.clock[i] == clocks[step]);
        CHECK(batch.outcome[i] == (step == 0 ? kImproved : cuts ? kReduced : 0));
        CHECK(batch.rate[i] == (step < 2 ? 1.0 : step < 6 ? 0.5 : 0.25));
        CHECK(batch.published[i] == static_cast<float>(batch.rate[i]));
      }
    }
    CHECK(batch.num_steps == (n > 0 ? 7 : 0));
  }
}

void lanes_are_cut_alike_few_or_many_at_a_time() {
  // Lane i improves on every step of which a hash is a multiple of `spread`: most lanes fire where
  // that is seldom, few where it is often. Offsets make the batch take the lane-by-lane way.
  for (const unsigned spread : {1U, 2U, 3U, 50U}) {
    constexpr std::int64_t n = 3000;
    Batch many(n);
    Batch each(n);
    std::vector<std::int64_t> offsets(n + 1);
    for (std::size_t i = 0; i <= n; ++i) offsets[i] = static_cast<std::int64_t>(i);
    each.lanes.offsets = offsets.data();
    for (Batch* batch : {&many, &each}) {
      batch->lanes.settings.min_lr.all = 0.05;
      batch->published[7] = 3.0F;  // written by somebody: adopted when lane 7 is cut
    }
    std::vector<double> metrics(n);
    for (unsigned step = 0; step < 40; ++step) {
      for (unsigned i = 0; i < n; ++i) {
        const bool improve = (i * 2654435761U + step * 40503U) / 7 % spread == 0;
        metrics[i] = improve ? -static_cast<double>(step) : 1e9;
      }
      const Metrics view{metrics.data(), 1, Dtype::kFloat64};
      CHECK(step_cpu(many.lanes, view) == step_cpu(each.lanes, view));
      CHECK(many.clock == each.clock);
      CHECK(many.outcome == each.outcome);
      CHECK(many.num_reductions == each.num_reductions);
      CHECK(many.published == each.published);
    }
    for (std::size_t i = 0; i < n; ++i) {
      CHECK(current_rate(many.rate[i], many.published[i]) ==
            current_rate(each.rate[i], each.published[i]));
    }
  }
}

void strides_are_followed() {
  Batch batch(700);
  std::vector<double> wide(2100);
  for (std::size_t i = 0; i < wide.size(); ++i) wide[i] = static_cast<double>(i);
  step_cpu(batch.lanes, Metrics{wide.data(), 3, Dtype::kFloat64});
  for (std::size_t i = 0; i < 700; ++i) CHECK(batch.best[i] == static_cast<double>(3 * i));
  Batch backwards(700);
  step_cpu(backwards.lanes, Metrics{wide.data() + 699, -1, Dtype::kFloat64});
  for (std::size_t i = 0; i < 700; ++i) CHECK(backwards.best[i] == static_cast<double>(699 - i));
}

void every_group_of_a_lane_is_cut() {
  Batch batch(2);
  std::vector<double> rate{1.0, 2.0, 4.0};
  std::vector<float> published{1.0F, 2.0F, 4.0F};
  const std::int64_t offsets[] = {0, 1, 3};
  batch.lanes.rate = rate.data();
  batch.lanes.published = published.data();
  batch.lanes.offsets = offsets;
  batch.lanes.settings.patience.all = 0;
  const double steps[][2] = {{1.0, 1.0}, {0.5, 1.0}};
  for (const auto& metrics : steps) step_cpu(batch.lanes, Metrics{metrics, 1, Dtype::kFloat64});
  CHECK((rate == std::vector<double>{1.0, 1.0, 2.0}));
  CHECK((published == std::vector<float>{1.0F, 1.0F, 2.0F}));
  CHECK(batch.num_reductions[0] == 0 && batch.num_reductions[1] == 1);
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
  a_flat_batch_is_cut_on_step_three_and_cools_for_two();
  lanes_are_cut_alike_few_or_many_at_a_time();
  strides_are_followed();
  every_group_of_a_lane_is_cut();
  small_floats_are_read_exactly();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
