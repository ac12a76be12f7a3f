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
    const bool steps = !active || active[lane];
    const int ask = steps ? begin_step<T>(lanes, options, lane, metric) : 0;
    int done = 0;
    if (ask & (kAskCut | kAskWarmUp)) {
      const std::int64_t first = lanes.offsets ? lanes.offsets[lane] : lane;
      const std::int64_t last = lanes.offsets ? lanes.offsets[lane + 1] : lane + 1;
      for (std::int64_t group = first; group < last; ++group) {
        done |= step_group<T>(lanes, options, lane, group, ask, metric);
      }
    }
    const int outcome = end_step(lanes, options, lane, ask, done);
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
