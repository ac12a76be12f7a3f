// SPDX-License-Identifier: BSD-3-Clause
// One step of a whole batch: declarations and contracts.
#pragma once

#include <cstdint>

#include "plateau/options.hpp"
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
/// num_reductions. `metrics` must hold `lanes.n` elements of a dtype that `holds()` accepts. No
/// lanes see no step: with n = 0 nothing is written. Never throws; nothing is allocated.
/// @return how many lanes had a rate lowered
std::int64_t step_cpu(const Lanes& lanes, const Metrics& metrics) noexcept;

/// @brief The same on a CUDA device: one kernel launch, and nothing that waits for it.
///
/// Every pointer in `lanes` and `metrics` must be of memory on `device`. The kernel is ordered by
/// `stream`, a `cudaStream_t` of that device; it may be capturing. The device that is current for
/// the calling thread is the same afterwards. With n = 0 nothing is launched.
/// @throw std::runtime_error if a CUDA call fails, naming it, with nothing written; the error is
/// cleared. Always, where the module was built without CUDA.
void step_cuda(const Lanes& lanes, const Metrics& metrics, int device, void* stream);

/// @brief step_cpu() and step_cuda() for lanes with optional parts: see lane.hpp for what a lane
/// does.
///
/// Lanes for which `active` holds 0 keep their state, as finished ones do; null means all step.
/// `options.events` must have room for the cuts of one step: `capacity` 0 or at least `num_groups`.
std::int64_t step_cpu(const Lanes& lanes, const Options& options, const Metrics& metrics,
                      const std::uint8_t* active) noexcept;
void step_cuda(const Lanes& lanes, const Options& options, const Metrics& metrics,
               const std::uint8_t* active, int device, void* stream);

/// @brief Load the kernels onto `device`, so that the first step may be one that is captured.
/// @throw std::runtime_error as step_cuda()
void prepare_cuda(int device);

/// What the CUDA part was built with: no toolkit ("") where there is none.
struct CudaBuild {
  const char* toolkit;        ///< version, like "13.0"
  const char* architectures;  ///< compute capabilities with machine code, like "750,800,900"
};
CudaBuild cuda_build() noexcept;

/// How many devices can be used now: 0 without a driver or without CUDA in the build.
int cuda_device_count() noexcept;

}  // namespace plateau
