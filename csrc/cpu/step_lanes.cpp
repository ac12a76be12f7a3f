// SPDX-License-Identifier: BSD-3-Clause
// The host loop for lanes with optional parts or a mask: in blocks, or lane by lane where the rates
// may rise.
#include <algorithm>

#include "cpu/block.hpp"
#include "cpu/parts.hpp"
#include "cpu/pieces.hpp"
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/step.hpp"

namespace plateau {
namespace {

template <class T>
Stepped step_each(const Lanes& lanes, const Metrics& metrics, const std::uint8_t* active,
                  std::int64_t from, std::int64_t to) noexcept {
  Stepped done;
  for (std::int64_t lane = from; lane < to; ++lane) {
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

Stepped step_blocks(const Lanes& lanes, const Parts& parts, const Metrics& metrics,
                    const std::uint8_t* active, std::int64_t from, std::int64_t to) noexcept {
  Block block;
  block.step = lanes.n > 0 ? lanes.steps(0) + 1 : 0;  // all counts are equal here
  Stepped done;
  for (block.begin = from; block.begin < to; block.begin += kPart) {
    block.count = static_cast<int>(std::min<std::int64_t>(kPart, to - block.begin));
    step_block(lanes, parts, metrics, active, block, done);
  }
  return done;
}

}  // namespace

Stepped step_lanes_cpu(const Lanes& lanes, const Metrics& metrics, const std::uint8_t* active,
                       int threads) noexcept {
  if (lanes.events_capacity > 0) threads = 1;
  Stepped done;
  if (has_passes(lanes)) {
    const Parts parts(lanes);
    done = step_in_pieces(lanes.n, threads, [&](std::int64_t from, std::int64_t to) noexcept {
      return step_blocks(lanes, parts, metrics, active, from, to);
    });
  } else {
    const auto step = lanes.best_dtype == Dtype::kFloat32 ? step_each<float> : step_each<double>;
    done = step_in_pieces(lanes.n, threads, [&](std::int64_t from, std::int64_t to) noexcept {
      return step(lanes, metrics, active, from, to);
    });
  }
  lanes.count_steps(1);
  return done;
}

}  // namespace plateau
