// SPDX-License-Identifier: BSD-3-Clause
// The host loop for lanes with optional parts or a mask: in blocks, or lane by lane where the rates
// may rise.
#include "cpu/block.hpp"
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/step.hpp"

namespace plateau {
namespace {

template <class T>
Stepped step_each(const Lanes& lanes, const Metrics& metrics, const std::uint8_t* active) noexcept {
  Stepped done;
  for (std::int64_t lane = 0; lane < lanes.n; ++lane) {
    int outcome = 0;
    if (!active || active[lane]) {
      double metric = metric_at<double>(metrics, lane);
      outcome = step_whole<T>(lanes, lane, lanes.age(lane) + 1, metric, done);
    } else {
      pass_by(lanes, lane);
    }
    lanes.state.outcome[lane] = static_cast<std::uint8_t>(outcome);
  }
  done.published |= lanes.state.noise != nullptr;
  return done;
}

/// V: what the metrics are read as, in place where that is a T that nothing changes.
template <class T, class V>
PLATEAU_INLINE Stepped step_blocks(const Lanes& lanes, const Metrics& metrics,
                                   const std::uint8_t* active) noexcept {
  constexpr Dtype kRead = sizeof(V) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
  alignas(64) std::remove_const_t<V> gathered[kPart];
  const Parts parts(lanes);
  Block block;
  block.step = lanes.n > 0 ? lanes.steps(0) + 1 : 0;  // all counts are equal here
  Stepped done;
  for (block.begin = 0; block.begin < lanes.n; block.begin += kPart) {
    block.count = static_cast<int>(std::min<std::int64_t>(kPart, lanes.n - block.begin));
    V* value = gathered;
    const bool in_place = metrics.dtype == kRead && metrics.stride == 1;
    if constexpr (std::is_const_v<V>) {
      if (in_place) value = static_cast<V*>(metrics.data) + block.begin;
    }
    if (value == gathered) gather(metrics, block.begin, block.count, gathered);
    step_block<T>(lanes, parts, active, value, block, done);
    std::uint8_t* __restrict outcome = lanes.state.outcome + block.begin;
    for (int i = 0; i < block.count; ++i) outcome[i] = static_cast<std::uint8_t>(block.marks[i]);
  }
  return done;
}

#define PLATEAU_STEP(name, T, V)                                                \
  PLATEAU_MULTIVERSION Stepped name(const Lanes& lanes, const Metrics& metrics, \
                                    const std::uint8_t* active) noexcept {      \
    return step_blocks<T, V>(lanes, metrics, active);                           \
  }
PLATEAU_STEP(as_they_are_f32, float, const float)
PLATEAU_STEP(as_they_are_f64, double, const double)
PLATEAU_STEP(filtered_f32, float, double)
PLATEAU_STEP(filtered_f64, double, double)
#undef PLATEAU_STEP

}  // namespace

Stepped step_lanes_cpu(const Lanes& lanes, const Metrics& metrics,
                       const std::uint8_t* active) noexcept {
  const bool narrow = lanes.best_dtype == Dtype::kFloat32;
  auto step = narrow ? step_each<float> : step_each<double>;
  if (Parts::know(lanes)) {
    step = lanes.has_filters() ? (narrow ? filtered_f32 : filtered_f64)
                               : (narrow ? as_they_are_f32 : as_they_are_f64);
  }
  const Stepped done = step(lanes, metrics, active);
  lanes.count_steps(1);
  return done;
}

}  // namespace plateau
