// SPDX-License-Identifier: BSD-3-Clause
// Plain structs: element types, and the metrics of a step.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"

namespace plateau {

enum class Dtype : std::uint8_t {
  kBool,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUInt8,
  kUInt16,
  kUInt32,
  kUInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
};

/// Size of an element.
PLATEAU_HD constexpr std::int64_t bytes_of(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kBool:
    case Dtype::kInt8:
    case Dtype::kUInt8:
      return 1;
    case Dtype::kInt16:
    case Dtype::kUInt16:
    case Dtype::kFloat16:
    case Dtype::kBFloat16:
      return 2;
    case Dtype::kInt32:
    case Dtype::kUInt32:
    case Dtype::kFloat32:
      return 4;
    default:
      return 8;
  }
}

/// One value per lane, read in place: `data` plus `i * stride` elements.
struct Metrics {
  const void* data;
  std::int64_t stride;
  Dtype dtype;
};

/// What a metric must beat: `best * scale + shift`, from below (min) or above (max). A safe gate is
/// `best + |best| * scale + shift`: on the right side of a negative best too.
struct Gate {
  double scale;
  double shift;
  bool maximize;
  bool safe = false;
};

}  // namespace plateau
