// SPDX-License-Identifier: BSD-3-Clause
// A step of lanes with optional parts or a mask: in blocks that stay in the first-level cache, in
// passes over elements of one width, as step.cpp has it for plain lanes; or of one by itself.
#pragma once

#include <cstdint>

#include "cpu/parts.hpp"
#include "plateau/lane.hpp"
#include "plateau/step.hpp"

namespace plateau {

/// Whether there are passes for all that these lanes do: no rate may rise, and float32 lanes have
/// no filters, as Python sees to.
bool has_passes(const Lanes& lanes) noexcept;

/// A step of the lanes of `block`, which says where it begins, how many it has and the number of
/// the step; `active` may be null, and metrics without data are in block.filtered. Outcomes are
/// left in block.marks too, and what decided in block.filtered where there are filters. What was
/// done is added to `done`.
void step_block(const Lanes& lanes, const Parts& parts, const Metrics& metrics,
                const std::uint8_t* active, Block& block, Stepped& done) noexcept;

/// A whole step of one lane, added to what the batch has done. Returns Outcome bits.
template <class T>
int step_whole(const Lanes& lanes, std::int64_t lane, std::int64_t step, double& metric,
               Stepped& done) noexcept {
  Told told;
  const int outcome = step_lane<T>(lanes, lane, step, metric, told);
  done.reduced += (outcome & kReduced) != 0;
  done.improved |= (outcome & kImproved) != 0;
  done.published |= (outcome & kRaised) || step <= lanes.settings.warmup_steps[lane];
  return outcome;
}

}  // namespace plateau
