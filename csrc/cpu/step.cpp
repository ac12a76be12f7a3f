// SPDX-License-Identifier: BSD-3-Clause
// The host loop. Lanes are taken in blocks that stay in the first-level cache, and the rule is
// applied to a block in passes, each over elements of one width: that is what lets the compiler
// use whole vectors for a mix of 1-, 4- and 8-byte fields. `best` is stored only for blocks in
// which some lane improved, and rates are touched only for lanes that are cut.
#include "plateau/step.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cpu/vector.hpp"
#include "plateau/group.hpp"
#include "plateau/metric.hpp"
#include "plateau/rule.hpp"

namespace plateau {
namespace {

constexpr int kBlock = 512;
constexpr int kChunk = 64;         // of lanes that are cut together: their rates are 8 bytes wide
constexpr int kMany = kBlock / 8;  // fired lanes of a block from which cutting them together pays

using Marks = std::int32_t[kBlock];  // Outcome bits, as wide as the clock

/// marks[i] = whether lane i improved. Returns whether any did.
template <class T, class GateOf>
PLATEAU_INLINE std::int32_t mark_improved(const T* __restrict metric, const T* __restrict best,
                                          int count, GateOf gate_of, Marks& marks) {
  std::int32_t any = 0;
  for (int i = 0; i < count; ++i) {
    const std::int32_t mark =
        improves(static_cast<double>(metric[i]), static_cast<double>(best[i]), gate_of(i));
    marks[i] = mark;
    any |= mark;
  }
  return any;
}

template <class T>
PLATEAU_INLINE std::int32_t mark_improved(const T* metric, const T* best, std::int64_t begin,
                                          int count, const Settings& settings, Marks& marks) {
  if (settings.uniform_gate()) {
    const double scale = settings.gate_scale.all;
    const double shift = settings.gate_shift.all;
    if (settings.maximize.all) {
      return mark_improved(
          metric, best, count, [=](int) { return Gate{scale, shift, true}; }, marks);
    }
    return mark_improved(
        metric, best, count, [=](int) { return Gate{scale, shift, false}; }, marks);
  }
  const auto gate_of = [&settings, begin](int i) {
    const std::int64_t lane = begin + i;
    return Gate{settings.gate_scale[lane], settings.gate_shift[lane], settings.maximize[lane] != 0};
  };
  return mark_improved(metric, best, count, gate_of, marks);
}

/// clock = tick(clock); marks |= kReduced where the lane fires. Returns whether any does.
template <class PatienceOf>
PLATEAU_INLINE std::int32_t advance(std::int32_t* __restrict clock, int count,
                                    PatienceOf patience_of, Marks& marks) {
  std::int32_t any = 0;
  for (int i = 0; i < count; ++i) {
    const std::int32_t next = tick(clock[i], marks[i] != 0);
    const std::int32_t fired = fires(next, patience_of(i)) ? kReduced : 0;
    clock[i] = next;
    marks[i] |= fired;
    any |= fired;
  }
  return any;
}

PLATEAU_INLINE std::int32_t advance(std::int32_t* clock, std::int64_t begin, int count,
                                    const Setting<std::int32_t>& patience, Marks& marks) {
  if (patience.each) {
    const std::int32_t* each = patience.each + begin;
    return advance(clock, count, [each](int i) { return each[i]; }, marks);
  }
  const std::int32_t all = patience.all;
  return advance(clock, count, [all](int) { return all; }, marks);
}

/// The lanes of a block that fired, waiting for their rates to arrive from memory.
struct Fired {
  std::int64_t lane[kBlock];
  int count = 0;
};

/// Writes down which lanes of a block fired, and asks for the memory that cutting them will touch:
/// rates are cold, and three misses for every lane in turn would cost more than all the rest.
void find_fired(const Lanes& lanes, std::int64_t begin, int count, Fired& fired) noexcept {
  const std::uint8_t* outcome = lanes.outcome + begin;
  for (int i = 0; i < count; i += 8) {
    const int width = std::min(8, count - i);
    std::uint64_t eight = 0;
    std::memcpy(&eight, outcome + i, static_cast<std::size_t>(width));
    if (!(eight & (0x0101010101010101U * kReduced))) continue;
    for (int j = i; j < i + width; ++j) {
      fired.lane[fired.count] = begin + j;
      fired.count += (outcome[j] & kReduced) != 0;
    }
  }
#if defined(__GNUC__)
  for (int k = 0; k < fired.count; ++k) {
    const std::int64_t lane = fired.lane[k];
    const std::int64_t group = lanes.first_group(lane);
    __builtin_prefetch(lanes.rate + group, 1);
    __builtin_prefetch(lanes.published + group, 1);
    __builtin_prefetch(lanes.num_reductions + lane, 1);
  }
#endif
}

/// The cold part: cuts the lanes that fired. Returns how many had a rate lowered.
std::int64_t cut_fired(const Lanes& lanes, Fired& fired) noexcept {
  std::int64_t reduced = 0;
  for (int k = 0; k < fired.count; ++k) {
    const std::int64_t lane = fired.lane[k];
    lanes.clock[lane] = -lanes.settings.cooldown[lane];
    if (cut_lane(lanes, lane)) {
      ++lanes.num_reductions[lane];
      ++reduced;
    } else {
      lanes.outcome[lane] &= static_cast<std::uint8_t>(~kReduced);
    }
  }
  fired.count = 0;
  return reduced;
}

/// The same for a block of which many lanes fired, all by the same settings and with one rate each:
/// every lane of it in vector passes, again over elements of one width. Lanes that did not fire get
/// their own rate back.
PLATEAU_INLINE std::int64_t cut_many(const Lanes& lanes, std::int64_t begin, int count,
                                     const std::int32_t* __restrict marks) {
  const double factor = lanes.settings.factor.all;
  const double min_lr = lanes.settings.min_lr.all;
  const double eps = lanes.settings.eps.all;
  const std::int32_t after_cut = -lanes.settings.cooldown.all;
  double* __restrict rate = lanes.rate + begin;
  float* __restrict published = lanes.published + begin;
  std::int32_t* __restrict clock = lanes.clock + begin;
  std::int32_t* __restrict num_reductions = lanes.num_reductions + begin;
  std::uint8_t* __restrict outcome = lanes.outcome + begin;
  alignas(64) double old[kChunk];
  alignas(64) double lowered[kChunk];
  alignas(64) std::int64_t fired[kChunk];
  alignas(64) std::int32_t reduced[kChunk];
  std::int32_t total = 0;
  for (int i = 0; i < count; ++i) fired[i] = marks[i] & kReduced;
  for (int i = 0; i < count; ++i) old[i] = current_rate(rate[i], published[i]);
  for (int i = 0; i < count; ++i) lowered[i] = cut(old[i], factor, min_lr, eps);
  for (int i = 0; i < count; ++i) lowered[i] = fired[i] ? lowered[i] : old[i];
  for (int i = 0; i < count; ++i) fired[i] = lowered[i] < old[i];
  for (int i = 0; i < count; ++i) rate[i] = lowered[i];
  for (int i = 0; i < count; ++i) published[i] = static_cast<float>(lowered[i]);
  for (int i = 0; i < count; ++i) reduced[i] = static_cast<std::int32_t>(fired[i]);
  for (int i = 0; i < count; ++i) {
    clock[i] = (marks[i] & kReduced) ? after_cut : clock[i];
    num_reductions[i] += reduced[i];
    total += reduced[i];
    reduced[i] = (marks[i] & kImproved) | (reduced[i] * kReduced);
  }
  for (int i = 0; i < count; ++i) outcome[i] = static_cast<std::uint8_t>(reduced[i]);
  return total;
}

template <class T>
PLATEAU_INLINE std::int64_t step_lanes(const Lanes& lanes, const Metrics& metrics) {
  constexpr Dtype kLane = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
  const bool in_place = metrics.dtype == kLane && metrics.stride == 1;
  alignas(64) T gathered[kBlock];
  alignas(64) Marks marks;
  const bool uniform_cut = !lanes.offsets && lanes.settings.uniform_cut();
  Fired fired[2];  // a block's lanes are cut while the rates of the next one's arrive
  Fired *now = &fired[0], *before = &fired[1];
  std::int64_t reduced = 0;
  for (std::int64_t begin = 0; begin < lanes.n; begin += kBlock) {
    const int count = static_cast<int>(std::min<std::int64_t>(kBlock, lanes.n - begin));
    T* best = static_cast<T*>(lanes.best) + begin;
    const T* metric = gathered;
    if (in_place) {
      metric = static_cast<const T*>(metrics.data) + begin;
    } else {
      gather(metrics, begin, count, gathered);
    }
    if (mark_improved(metric, best, begin, count, lanes.settings, marks)) {
      for (int i = 0; i < count; ++i) best[i] = marks[i] ? metric[i] : best[i];
    }
    const std::int32_t any =
        advance(lanes.clock + begin, begin, count, lanes.settings.patience, marks);
    std::uint8_t* outcome = lanes.outcome + begin;
    for (int i = 0; i < count; ++i) outcome[i] = static_cast<std::uint8_t>(marks[i]);
    if (any) {
      std::int32_t bits = 0;
      for (int i = 0; i < count; ++i) bits += marks[i] & kReduced;
      if (bits >= kMany * kReduced && uniform_cut) {
        for (int at = 0; at < count; at += kChunk) {
          reduced += cut_many(lanes, begin + at, std::min(kChunk, count - at), marks + at);
        }
      } else {
        std::swap(now, before);
        find_fired(lanes, begin, count, *now);
        reduced += cut_fired(lanes, *before);
      }
    }
  }
  return reduced + cut_fired(lanes, *now);
}

PLATEAU_MULTIVERSION std::int64_t step_f32(const Lanes& lanes, const Metrics& metrics) {
  return step_lanes<float>(lanes, metrics);
}

PLATEAU_MULTIVERSION std::int64_t step_f64(const Lanes& lanes, const Metrics& metrics) {
  return step_lanes<double>(lanes, metrics);
}

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

std::int64_t step_cpu(const Lanes& lanes, const Metrics& metrics) noexcept {
  if (lanes.n == 0) return 0;
  ++*lanes.num_steps;
  return lanes.best_dtype == Dtype::kFloat32 ? step_f32(lanes, metrics) : step_f64(lanes, metrics);
}

}  // namespace plateau
