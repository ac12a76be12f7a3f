// SPDX-License-Identifier: BSD-3-Clause
// The host loop. Lanes are taken in blocks that stay in the first-level cache, and the rule is
// applied to a block in passes, each over elements of one width: that is what lets the compiler
// use whole vectors for a mix of 1-, 4- and 8-byte fields. `best` is stored only for blocks in
// which some lane improved, and rates are touched only for lanes that are cut.
#include "plateau/step.hpp"

#include <algorithm>
#include <cstring>

#include "cpu/passes.hpp"
#include "cpu/pieces.hpp"
#include "cpu/vector.hpp"
#include "plateau/fire.hpp"
#include "plateau/metric.hpp"
#include "plateau/rule.hpp"

namespace plateau {
namespace {

constexpr int kChunk = 64;         // of lanes that are cut together: their rates are 8 bytes wide
constexpr int kMany = kBlock / 8;  // fired lanes of a block from which cutting them together pays
constexpr int kAhead = 3;          // blocks that are stepped while memory for a cut is on its way

using Marks = std::int32_t[kBlock];  // Outcome bits, as wide as the clock

/// marks: which lanes improved. Returns whether any did.
template <class T>
PLATEAU_INLINE std::int32_t improve(const Lanes& lanes, const Gates& gates, std::int64_t begin,
                                    int count, const T* metric, T* best, Marks& marks) {
  const std::int32_t any = gates.with<false>(lanes, begin, [&](auto gate_of) PLATEAU_INLINED {
    return mark_improved(metric, best, count, All{}, gate_of, marks);
  });
  if (!any) return 0;
  for (int i = 0; i < count; ++i) best[i] = marks[i] ? metric[i] : best[i];
  return any;
}

/// The clocks; marks: which lanes fire too. Returns whether any does.
PLATEAU_INLINE std::int32_t advance(const Lanes& lanes, std::int64_t begin, int count,
                                    Marks& marks) {
  const std::uint8_t counting = lanes.settings.counting.all;  // one per lane has another loop
  return with(lanes.settings.patience, begin, [&](auto patience) PLATEAU_INLINED {
    const auto bears = [=](int i) { return borne(patience(i), counting); };
    return advance(lanes.state.clock + begin, count, All{}, Tick{}, bears, marks);
  });
}

/// The lanes of a block that fired, waiting for their rates to arrive from memory.
struct Fired {
  std::int64_t lane[kBlock];
  std::int32_t bits[kBlock];  // of their outcomes: written last, as a byte may alias any pointer
  int count = 0;
};

/// Writes down which lanes of a block fired, and asks for the memory that cutting them will touch.
void find_fired(const Lanes& lanes, std::int64_t begin, int count, Fired& fired) noexcept {
  const std::uint8_t* outcome = lanes.state.outcome + begin;
  for (int i = 0; i < count; i += 8) {
    const int width = std::min(8, count - i);
    std::uint64_t eight = 0;
    std::memcpy(&eight, outcome + i, static_cast<std::size_t>(width));
    if (!(eight & (0x0101010101010101U * kFired))) continue;
    for (int j = i; j < i + width; ++j) {
      fired.lane[fired.count] = begin + j;
      fired.count += (outcome[j] & kFired) != 0;
    }
  }
  for (int k = 0; k < fired.count; ++k) fetch_for_cut(lanes, fired.lane[k]);
}

/// The cold part: cuts the lanes that fired. Returns how many had a rate lowered.
std::int64_t cut_fired(const Lanes& lanes, std::int64_t step, Fired& fired) noexcept {
  std::int64_t reduced = 0;
  for (int k = 0; k < fired.count; ++k) {
    const std::int64_t lane = fired.lane[k];
    fired.bits[k] = end_fire(lanes, lane, step, cut_lane(lanes, lane), lanes.state.clock[lane]);
    reduced += (fired.bits[k] & kReduced) != 0;
  }
  std::uint8_t* outcome = lanes.state.outcome;
  for (int k = 0; k < fired.count; ++k) {
    outcome[fired.lane[k]] |= static_cast<std::uint8_t>(fired.bits[k]);
  }
  fired.count = 0;
  return reduced;
}

/// A chunk of a block of which many lanes fired, all by the same settings and with one rate each:
/// cut in vector passes over elements of one width. Lanes that did not fire, or whose rate could
/// not be lowered, keep theirs as it is in memory. Returns how many had a rate lowered.
PLATEAU_INLINE std::int32_t cut_many(const Lanes& lanes, std::int64_t begin, int count,
                                     std::int64_t step, std::int32_t* __restrict marks) {
  const double factor = lanes.settings.factor.all;
  const double min_lr = lanes.settings.min_lr.all;
  const double eps = lanes.settings.eps.all;
  double* __restrict rate = lanes.state.rate + begin;
  float* __restrict published = lanes.state.published + begin;
  std::uint8_t* __restrict outcome = lanes.state.outcome + begin;
  alignas(64) double written[kChunk];
  alignas(64) double old[kChunk];
  alignas(64) double lowered[kChunk];
  alignas(64) std::int64_t reduced[kChunk];
  for (int i = 0; i < count; ++i) reduced[i] = marks[i] & kFired;
  for (int i = 0; i < count; ++i) written[i] = published[i];
  for (int i = 0; i < count; ++i) old[i] = current_rate(rate[i], written[i]);
  for (int i = 0; i < count; ++i) lowered[i] = cut(old[i], factor, min_lr, eps);
  for (int i = 0; i < count; ++i) reduced[i] = (reduced[i] != 0) & (lowered[i] < old[i]);
  for (int i = 0; i < count; ++i) rate[i] = reduced[i] ? lowered[i] : rate[i];
  for (int i = 0; i < count; ++i) written[i] = reduced[i] ? lowered[i] : written[i];
  for (int i = 0; i < count; ++i) published[i] = static_cast<float>(written[i]);
  const std::int32_t total = end_fires(lanes, begin, count, step, reduced, marks);
  for (int i = 0; i < count; ++i) outcome[i] = static_cast<std::uint8_t>(marks[i]);
  return total;
}

/// A step of the lanes from `from` to `to`.
template <class T>
PLATEAU_INLINE Stepped step_lanes(const Lanes& lanes, const Metrics& metrics, std::int64_t from,
                                  std::int64_t to) {
  constexpr Dtype kLane = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
  const bool in_place = metrics.dtype == kLane && metrics.stride == 1;
  alignas(64) T gathered[kBlock];
  alignas(64) Marks marks;
  const Gates gates(lanes);
  const bool uniform_cut = lanes.one_cutting && !lanes.offsets;
  Fired fired[kAhead + 1];  // a block's lanes are cut while the rates of the next ones' arrive
  int at = 0;
  const std::int64_t step = lanes.n > 0 ? lanes.steps(0) + 1 : 0;  // all counts are equal here
  bool improved = false;
  std::int64_t reduced = 0;
  for (std::int64_t begin = from; begin < to; begin += kBlock) {
    const int count = static_cast<int>(std::min<std::int64_t>(kBlock, to - begin));
    T* best = static_cast<T*>(lanes.state.best) + begin;
    const T* metric = gathered;
    if (in_place) {
      metric = static_cast<const T*>(metrics.data) + begin;
    } else {
      gather(metrics, begin, count, gathered);
    }
    improved |= improve(lanes, gates, begin, count, metric, best, marks) != 0;
    const std::int32_t any = advance(lanes, begin, count, marks);
    std::uint8_t* outcome = lanes.state.outcome + begin;
    for (int i = 0; i < count; ++i) outcome[i] = static_cast<std::uint8_t>(marks[i]);
    if (any) {
      std::int32_t bits = 0;
      for (int i = 0; i < count; ++i) bits += marks[i] & kFired;
      if (bits >= kMany * kFired && uniform_cut) {
        for (int i = 0; i < count; i += kChunk) {
          reduced += cut_many(lanes, begin + i, std::min(kChunk, count - i), step, marks + i);
        }
      } else {
        find_fired(lanes, begin, count, fired[at]);
        at = (at + 1) % (kAhead + 1);
        reduced += cut_fired(lanes, step, fired[at]);
      }
    }
  }
  for (Fired& waiting : fired) reduced += cut_fired(lanes, step, waiting);
  return {reduced, improved, false};
}

#define PLATEAU_STEP(name, T)                                                                      \
  PLATEAU_MULTIVERSION Stepped name(const Lanes& lanes, const Metrics& metrics, std::int64_t from, \
                                    std::int64_t to) {                                             \
    return step_lanes<T>(lanes, metrics, from, to);                                                \
  }
PLATEAU_STEP(step_f32, float)
PLATEAU_STEP(step_f64, double)
#undef PLATEAU_STEP

}  // namespace

bool holds(Dtype lanes, Dtype metric) noexcept {
  if (lanes == Dtype::kFloat64) return true;
  switch (metric) {
    case Dtype::kFloat64:
    case Dtype::kInt32:
    case Dtype::kInt64:
    case Dtype::kUInt32:
    case Dtype::kUInt64:
      return false;
    default:
      return true;
  }
}

double read(const void* element, Dtype dtype) noexcept {
  return metric_at<double>(Metrics{element, 1, dtype}, 0);
}

Stepped step_cpu(const Lanes& lanes, const Metrics& metrics, int threads) noexcept {
  const auto step = lanes.best_dtype == Dtype::kFloat32 ? step_f32 : step_f64;
  const Stepped done = step_in_pieces(
      lanes.n, threads,
      [&](std::int64_t from, std::int64_t to) noexcept { return step(lanes, metrics, from, to); });
  lanes.count_steps(1);
  return done;
}

}  // namespace plateau
