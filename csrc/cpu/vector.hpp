// SPDX-License-Identifier: BSD-3-Clause
// What the vectorised host loops share.
#pragma once

#include <cstdint>

#include "plateau/metric.hpp"

// One binary, the best vector unit of the machine it runs on: the loader picks the clone, which is
// before ThreadSanitizer is ready for what it picks with.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 12 && !defined(__SANITIZE_THREAD__)
#define PLATEAU_MULTIVERSION \
  __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define PLATEAU_MULTIVERSION
#endif

namespace plateau {

/// Copies elements [begin, begin + count) of `metrics` into `out` as T.
template <class T>
void gather(const Metrics& metrics, std::int64_t begin, std::int64_t count, T* out) noexcept {
  visit(metrics.dtype, [&](auto* tag) {
    const auto* from = static_cast<decltype(tag)>(metrics.data) + begin * metrics.stride;
    for (std::int64_t i = 0; i < count; ++i) {
      out[i] = static_cast<T>(value(from[i * metrics.stride]));
    }
  });
}

}  // namespace plateau
