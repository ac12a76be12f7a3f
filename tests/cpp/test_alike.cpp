// SPDX-License-Identifier: BSD-3-Clause
// The host's loops against one another, bit for bit, on lanes drawn at random: vectors of lanes
// against lane by lane, replays against steps, and what replays tell of them against what those do.
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <limits>
#include <set>
#include <vector>

#include "check.hpp"
#include "drawn.hpp"
#include "held.hpp"
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/replay.hpp"
#include "plateau/step.hpp"
#include "rows.hpp"

namespace {

using namespace plateau;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

const std::initializer_list<std::int64_t> kSizes = {0,   1,   2,   63,  64,  65,  127, 255,  256,
                                                    257, 448, 511, 512, 513, 575, 577, 1024, 1100};
constexpr std::int64_t kEpochs = 7;

template <class B>
std::vector<B> history_for(std::int64_t n) {
  return some<B>(kEpochs * n, {B(1), B(0.5), B(0.9), B(0), B(-1), B(2), B(kNan), B(kInfinity)});
}

/// Returns how many cuts there were.
template <class B>
std::int64_t compare_steps(const Draw& draw) {
  Held<B> vectors = drawn<B>(draw), lanes = vectors;
  const std::vector<B> history = history_for<B>(draw.form.n);
  std::int64_t cuts = 0;
  for (std::int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    const Metrics metrics{history.data() + epoch * draw.form.n, 1, dtype_of<B>()};
    const Stepped one = step_cpu(vectors.lanes(), metrics);
    const Stepped other = step_lanes_cpu(lanes.lanes(), metrics, nullptr);
    CHECK(one.reduced == other.reduced);
    CHECK(one.improved == other.improved);
    CHECK_SAME(vectors, lanes);
    cuts += one.reduced;
  }
  return cuts;
}

/// Here without OpenMP, so on threads of our own.
void many_lanes_step_alike_on_several_threads() {
  constexpr std::int64_t n = 2 * kLanesPerThread + 777;
  Held<float> alone = drawn<float>({{n}, Each::kNone}), shared = alone, parts = alone;
  const std::vector<float> history = some<float>(n, {1.0F, 0.5F, -1.0F, static_cast<float>(kNan)});
  const Metrics metrics{history.data(), 1, Dtype::kFloat32};
  for (int step = 0; step < 2; ++step) {
    const Stepped one = step_cpu(alone.lanes(), metrics);
    const Stepped other = step_cpu(shared.lanes(), metrics, 3);
    const Stepped third = step_lanes_cpu(parts.lanes(), metrics, nullptr, 2);
    CHECK(one.reduced == other.reduced && one.reduced == third.reduced);
    CHECK(one.improved == other.improved && one.improved == third.improved);
    CHECK_SAME(alone, shared);
    CHECK_SAME(alone, parts);
  }
}

std::vector<std::int64_t> some_counts(std::int64_t n) {
  return n ? some<std::int64_t>(n, {0, 1, 1, 2, 5}) : std::vector<std::int64_t>{};
}

void vectors_of_lanes_step_as_each_lane_does() {
  std::int64_t cuts = 0;
  for (const std::int64_t n : kSizes) {
    for (const Each each : {Each::kNone, Each::kAll, Each::kFew}) {
      for (int round = 0; round < 12; ++round) {
        cuts += compare_steps<double>({{n}, each});
        cuts += compare_steps<float>({{n}, each});
      }
      cuts += compare_steps<double>({{n, some_counts(n)}, each});
    }
  }
  CHECK(cuts > 100000);
}

/// Whether the rows of an epoch hold the state after it.
template <class B>
bool hold_state(const Rows<Vector, B>& rows, std::int64_t epoch, const Held<B>& held) {
  const auto as_in = [epoch](const auto& all, const auto& now) {
    const std::size_t first = static_cast<std::size_t>(epoch) * now.size();
    return same_bits(all.data() + first, now.data(), now.size());
  };
  return as_in(rows.outcome, held.state.outcome) && as_in(rows.best, held.state.best) &&
         as_in(rows.clock, held.state.clock) && as_in(rows.published, held.state.published);
}

/// A replay against steps, and against one that tells why. Returns how many lanes were cut.
template <class B>
std::int64_t compare_replay(const Draw& draw, bool shared, int threads) {
  const std::int64_t width = shared ? 1 : draw.form.n;
  Held<B> stepped = drawn<B>(draw), replayed = stepped, asked = stepped, brief = stepped;
  const bool parts = stepped.has_parts();
  const std::vector<B> metrics = history_for<B>(width);
  const History history{{metrics.data(), shared ? 0 : 1, dtype_of<B>()}, width, kEpochs};
  auto rows = rows_for<B>(draw.form, kEpochs, Tell::kState);
  auto reasons = rows_for<B>(draw.form, kEpochs, Tell::kReasons);
  auto summary = rows_for<B>(draw.form, kEpochs, Tell::kSummary);
  replay_cpu(replayed.lanes(), history, record_of(rows), parts, threads);
  replay_cpu(asked.lanes(), history, record_of(reasons), parts, threads);
  replay_cpu(brief.lanes(), history, record_of(summary), parts, threads);
  for (std::int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    if (parts) {
      step_lanes_cpu(stepped.lanes(), history.at(epoch), nullptr);
    } else {
      step_cpu(stepped.lanes(), history.at(epoch));
    }
    CHECK(hold_state(rows, epoch, stepped));
  }
  CHECK_SAME(stepped, replayed);
  CHECK_SAME(stepped, asked);
  CHECK_SAME(stepped, brief);
  CHECK_SAME(rows, reasons);
  CHECK_SAME(rows, summary);
  std::int64_t cut = 0;
  for (const std::int32_t first : rows.first_cut) cut += first > 0;
  return cut;
}

void a_replay_is_steps_and_a_replay_that_tells_why_is_too() {
  std::int64_t cut = 0;
  for (const std::int64_t n : kSizes) {
    for (const Each each : {Each::kNone, Each::kAll, Each::kFew}) {
      for (const bool parts : {false, true}) {
        for (const bool shared : {false, true}) {
          for (int round = 0; round < 4; ++round) {
            cut += compare_replay<double>({{n}, each, parts}, shared, 1);
          }
          cut += compare_replay<float>({{n}, each, parts}, shared, 1);
          cut += compare_replay<double>({{n, some_counts(n)}, each, parts}, shared, 1);
        }
      }
    }
  }
  CHECK(cut > 20000);
}

std::set<int> stops;  // reasons for which lanes were finished

/// The rows that tell why against what each lane tells of its steps. Returns the former.
template <class B>
std::vector<std::uint8_t> compare_told(const Draw& draw) {
  Held<B> stepped = drawn<B>(draw), replayed = stepped;
  const std::vector<B> metrics = history_for<B>(draw.form.n);
  const History history{{metrics.data(), 1, dtype_of<B>()}, draw.form.n, kEpochs};
  auto rows = rows_for<B>(draw.form, kEpochs, Tell::kReasons);
  replay_cpu(replayed.lanes(), history, record_of(rows), stepped.has_parts(), 1);
  Rows<Vector, B> told_of;
  const Lanes lanes = stepped.lanes();
  for (std::int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    for (std::int64_t lane = 0; lane < lanes.n; ++lane) {
      double metric = metric_at<double>(history.at(epoch), lane);
      Told told;
      step_lane<B>(lanes, lane, lanes.age(lane) + 1, metric, told);
      if (told.why & kAlsoFinished) stops.insert(lanes.state.stop_reason[lane]);
      told_of.value.push_back(metric);
      told_of.why.push_back(told.why);
      told_of.gate.push_back(told.gate);
      told_of.count.push_back(told.count);
      told_of.limit.push_back(told.limit);
    }
    lanes.count_steps(1);
  }
  CHECK_SAME(rows, told_of);
  return rows.why;
}

void a_replay_writes_down_what_each_step_tells_and_every_reason_there_is() {
  std::set<int> reasons;
  std::uint8_t bits = 0;
  for (const bool parts : {false, true}) {
    for (int round = 0; round < 40; ++round) {
      for (const Draw& draw :
           {Draw{{70}, Each::kFew, parts}, Draw{{50, some_counts(50)}, Each::kAll, parts}}) {
        for (const std::uint8_t why : compare_told<double>(draw)) {
          reasons.insert(why & kReasonBits);
          bits |= why;
        }
        compare_told<float>(draw);
      }
    }
  }
  CHECK(reasons.size() == kAnew + 1);
  CHECK((bits & ~kReasonBits) == (kAlsoFinished | kAlsoFirst | kAlsoGain));
  CHECK((stops == std::set<int>{kByNan, kByDivergence, kByTarget, kByPatience, kAtFloor,
                                kByMaxReductions, kByMaxSteps}));
}

void threads_share_the_lanes_of_a_replay() {
  for (const bool parts : {false, true}) {
    CHECK(compare_replay<double>({{60000}, Each::kAll, parts}, false, 4) > 0);
  }
}

}  // namespace

int main() {
  vectors_of_lanes_step_as_each_lane_does();
  a_replay_is_steps_and_a_replay_that_tells_why_is_too();
  a_replay_writes_down_what_each_step_tells_and_every_reason_there_is();
  threads_share_the_lanes_of_a_replay();
  many_lanes_step_alike_on_several_threads();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
