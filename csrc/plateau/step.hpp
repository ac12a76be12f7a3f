// SPDX-License-Identifier: BSD-3-Clause
// One step of a whole batch: declarations and contracts.
#pragma once

#include <cstdint>

#include "plateau/types.hpp"

namespace plateau {

/// Whether lanes that store `best` as `lanes` hold every value of `metric` exactly (float64 lanes
/// take every dtype, rounding 64-bit integers as Python's float() does).
bool holds(Dtype lanes, Dtype metric) noexcept;

/// One element, as Python's float() reads it.
double read(const void* element, Dtype dtype) noexcept;

/// @brief Advance every lane by one metric, on the calling thread.
///
///     improved  = metric beats best*gate_scale + gate_shift
///     best      = metric where improved
///     clock     = tick(clock, improved)
///     where clock > patience: cut each rate of the lane, clock = -cooldown
///
/// Writes best, clock, outcome and num_steps, and for lanes that are cut also rate, published and
/// num_reductions. `metrics` must hold `lanes.n` elements of a dtype that `holds()` accepts.
/// Never throws; nothing is allocated.
/// @return how many lanes had a rate lowered
std::int64_t step_cpu(const Lanes& lanes, const Metrics& metrics) noexcept;

}  // namespace plateau
