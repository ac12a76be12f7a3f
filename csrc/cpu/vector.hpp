// SPDX-License-Identifier: BSD-3-Clause
// What the vectorised host loops share.
#pragma once

#include <cstdint>

#include "plateau/lanes.hpp"
#include "plateau/types.hpp"

// One binary, the best vector unit of the machine it runs on: the loader picks the clone, which is
// before ThreadSanitizer is ready for what it picks with.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 12 && !defined(__SANITIZE_THREAD__)
#define PLATEAU_MULTIVERSION \
  __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define PLATEAU_MULTIVERSION
#endif

// What such a function calls is compiled with it, for the same vector unit.
#if defined(__GNUC__)
#define PLATEAU_FLAT __attribute__((flatten))
#else
#define PLATEAU_FLAT
#endif

namespace plateau {

/// Copies elements [begin, begin + count) of `metrics` into `out`, which must hold them exactly
/// (double rounds 64-bit integers as Python does).
void gather(const Metrics& metrics, std::int64_t begin, int count, float* out) noexcept;
void gather(const Metrics& metrics, std::int64_t begin, int count, double* out) noexcept;

/// Asks for the memory that cutting a lane will touch: it is cold, and a handful of misses for
/// every lane in turn would cost more than all the rest.
inline void fetch_for_cut([[maybe_unused]] const Lanes& lanes,
                          [[maybe_unused]] std::int64_t lane) noexcept {
#if defined(__GNUC__)
  const std::int64_t group = lanes.first_group(lane);
  __builtin_prefetch(lanes.state.rate + group, 1);
  __builtin_prefetch(lanes.state.published + group, 1);
  __builtin_prefetch(lanes.state.num_reductions + lane, 1);
  __builtin_prefetch(lanes.state.last_cut + lane, 1);
#endif
}

}  // namespace plateau
