// SPDX-License-Identifier: BSD-3-Clause
// Metrics of any type and stride as the numbers that a block compares, converted in whole vectors.
#include <cstdint>

#include "cpu/vector.hpp"
#include "plateau/metric.hpp"
#include "plateau/types.hpp"

namespace plateau {
namespace {

template <class T>
PLATEAU_INLINE void gather_as(const Metrics& metrics, std::int64_t begin, int count,
                              T* __restrict out) noexcept {
  visit(metrics.dtype, [&](auto* tag) PLATEAU_INLINED {
    const std::int64_t stride = metrics.stride;
    const auto* __restrict from = static_cast<decltype(tag)>(metrics.data) + begin * stride;
    if (stride == 1) {
      for (int i = 0; i < count; ++i) out[i] = static_cast<T>(value(from[i]));
    } else {
      for (int i = 0; i < count; ++i) out[i] = static_cast<T>(value(from[i * stride]));
    }
  });
}

#define PLATEAU_GATHER(name, T)                                                           \
  PLATEAU_MULTIVERSION PLATEAU_FLAT void name(const Metrics& metrics, std::int64_t begin, \
                                              int count, T* out) {                        \
    gather_as(metrics, begin, count, out);                                                \
  }
PLATEAU_GATHER(gather_f32, float)
PLATEAU_GATHER(gather_f64, double)
#undef PLATEAU_GATHER

}  // namespace

void gather(const Metrics& metrics, std::int64_t begin, int count, float* out) noexcept {
  gather_f32(metrics, begin, count, out);
}

void gather(const Metrics& metrics, std::int64_t begin, int count, double* out) noexcept {
  gather_f64(metrics, begin, count, out);
}

}  // namespace plateau
