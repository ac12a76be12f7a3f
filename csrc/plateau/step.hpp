// SPDX-License-Identifier: BSD-3-Clause
// One step of a whole batch: declarations and contracts.
#pragma once

#include <cstdint>

#include "plateau/lanes.hpp"
#include "plateau/types.hpp"

namespace plateau {

/// Whether lanes that store `best` as `lanes` hold every value of `metric` exactly (float64 lanes
/// take every dtype, rounding 64-bit integers as Python's float() does).
bool holds(Dtype lanes, Dtype metric) noexcept;

/// One element, as Python's float() reads it.
double read(const void* element, Dtype dtype) noexcept;

/// What a step on the host did, to those who must hear of it.
struct Stepped {
  std::int64_t reduced = 0;  ///< lanes that had a rate lowered
  bool improved = false;     ///< whether any lane's `best` was written
  bool published = false;    ///< whether any rate was raised, or published with noise
};

/// Lanes of a step from which on a second thread pays, here and for each further one.
constexpr std::int64_t kLanesPerThread = 1 << 17;

/// @brief Advance every lane by one metric, on at most `threads` threads: fewer for less than
/// kLanesPerThread lanes each. The result does not depend on how many they are.
///
///     improved  = metric beats the gate
///     best      = metric where improved
///     clock     = tick(clock, improved)
///     where clock > patience: cut each rate of the lane, clock = -cooldown
///
/// Writes best, clock, outcome and num_steps, and for lanes that fire what end_fire() says.
/// `metrics` must hold `lanes.n` elements of a dtype that `holds()` accepts. No lanes see no step:
/// with n = 0 nothing is written. Never throws; nothing is allocated on one thread.
Stepped step_cpu(const Lanes& lanes, const Metrics& metrics, int threads = 1) noexcept;

/// @brief The same for lanes with optional parts, or some of which are not active: see lane.hpp for
/// what a lane does. Lanes for which `active` holds 0 keep their state, as finished ones do; null
/// means all step. Where events are recorded, in the order of the lanes, there is one thread.
Stepped step_lanes_cpu(const Lanes& lanes, const Metrics& metrics, const std::uint8_t* active,
                       int threads = 1) noexcept;

/// @brief The same on a CUDA device: one kernel launch, and nothing that waits for it.
///
/// Every pointer in `lanes` and `metrics` must be of memory on `device`. The kernel is ordered by
/// `stream`, a `cudaStream_t` of that device; it may be capturing. The device that is current for
/// the calling thread is the same afterwards. With n = 0 nothing is launched.
/// @throw std::runtime_error if a CUDA call fails, naming it, with nothing written; the error is
/// cleared. Always, where the module was built without CUDA.
void step_cuda(const Lanes& lanes, const Metrics& metrics, int device, void* stream);
void step_lanes_cuda(const Lanes& lanes, const Metrics& metrics, const std::uint8_t* active,
                     int device, void* stream);

/// @brief Load the kernels onto `device`, so that the first step or replay may be one that is
/// captured.
/// @throw std::runtime_error as step_cuda()
void prepare_cuda(int device);

/// What the CUDA part was built with: no toolkit ("") where there is none.
struct CudaBuild {
  const char* toolkit;        ///< version, like "13.0"
  const char* architectures;  ///< compute capabilities with machine code, like "750,800,900"
};
CudaBuild cuda_build() noexcept;

}  // namespace plateau
