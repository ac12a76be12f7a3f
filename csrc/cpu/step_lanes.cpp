// SPDX-License-Identifier: BSD-3-Clause
// The host loop for lanes with optional parts or a mask: lane by lane.
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/step.hpp"

namespace plateau {
namespace {

template <class T>
Stepped step_each(const Lanes& lanes, const Metrics& metrics, const std::uint8_t* active) noexcept {
  Stepped done;
  done.published = lanes.state.noise != nullptr;
  for (std::int64_t lane = 0; lane < lanes.n; ++lane) {
    int outcome = 0;
    if (!active || active[lane]) {
      double metric = metric_at<double>(metrics, lane);
      Told told;
      outcome = step_lane<T>(lanes, lane, lanes.age(lane) + 1, metric, told);
    } else {
      pass_by(lanes, lane);
    }
    lanes.state.outcome[lane] = static_cast<std::uint8_t>(outcome);
    done.reduced += (outcome & kReduced) != 0;
    done.improved |= (outcome & kImproved) != 0;
    done.published |= (outcome & kRaised) != 0;
  }
  return done;
}

}  // namespace

Stepped step_lanes_cpu(const Lanes& lanes, const Metrics& metrics,
                       const std::uint8_t* active) noexcept {
  const Stepped done = lanes.best_dtype == Dtype::kFloat32
                           ? step_each<float>(lanes, metrics, active)
                           : step_each<double>(lanes, metrics, active);
  lanes.count_steps(1);
  return done;
}

}  // namespace plateau
