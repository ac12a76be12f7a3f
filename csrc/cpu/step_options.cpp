// SPDX-License-Identifier: BSD-3-Clause
// The host loop for lanes with optional parts: lane by lane.
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/step.hpp"

namespace plateau {
namespace {

template <class T>
std::int64_t step_lanes(const Lanes& lanes, const Options& options, const Metrics& metrics,
                        const std::uint8_t* active) noexcept {
  std::int64_t reduced = 0;
  for (std::int64_t lane = 0; lane < lanes.n; ++lane) {
    double metric = metric_at<double>(metrics, lane);
    const int outcome = !active || active[lane] ? step_lane<T>(lanes, options, lane, metric) : 0;
    lanes.outcome[lane] = static_cast<std::uint8_t>(outcome);
    reduced += (outcome & kReduced) != 0;
  }
  return reduced;
}

}  // namespace

std::int64_t step_cpu(const Lanes& lanes, const Options& options, const Metrics& metrics,
                      const std::uint8_t* active) noexcept {
  if (lanes.n == 0) return 0;
  ++*lanes.num_steps;
  return lanes.best_dtype == Dtype::kFloat32 ? step_lanes<float>(lanes, options, metrics, active)
                                             : step_lanes<double>(lanes, options, metrics, active);
}

}  // namespace plateau
