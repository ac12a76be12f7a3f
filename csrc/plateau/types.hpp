// SPDX-License-Identifier: BSD-3-Clause
// Plain structs: what a lane is asked to beat, and what a batch of lanes is in memory.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"

namespace plateau {

/// The value that a metric must beat: `best * scale + shift`, from below (min) or above (max). A
/// safe gate is `best + |best| * scale + shift`: on the right side of a negative best too.
struct Gate {
  double scale;
  double shift;
  bool maximize;
  bool safe = false;
};

/// Bits of a lane's one-byte outcome of the last step.
enum Outcome : std::uint8_t {
  kImproved = 1,  ///< the metric beat the gate and became `best`
  kReduced = 2,   ///< at least one of the lane's rates was lowered
};

/// A hyper-parameter: one value for all lanes, or one per lane when `each` is set.
template <class T>
struct Setting {
  const T* each = nullptr;
  T all{};

  PLATEAU_HD T operator[](std::int64_t i) const noexcept { return each ? each[i] : all; }
};

struct Settings {
  Setting<double> gate_scale;
  Setting<double> gate_shift;
  Setting<std::uint8_t> maximize;
  Setting<std::int32_t> patience;
  Setting<std::int32_t> cooldown;
  Setting<double> factor;
  Setting<double> eps;
  Setting<double> min_lr;  ///< indexed by group, not by lane

  /// Whether one gate serves all lanes (the loop without loads of hyper-parameters).
  bool uniform_gate() const noexcept {
    return !gate_scale.each && !gate_shift.each && !maximize.each;
  }

  /// Whether all lanes that fire are cut alike.
  bool uniform_cut() const noexcept {
    return !factor.each && !eps.each && !min_lr.each && !cooldown.each;
  }
};

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

/// The state of `n` lanes, structure of arrays; nothing here is owned.
///
/// `best` holds float or double as `best_dtype` says. Lane i owns the groups
/// `offsets[i] .. offsets[i + 1]`, or just group i when `offsets` is null. `rate` is the float64
/// master of each group and `published` the float32 copy that optimizers read.
struct Lanes {
  std::int64_t n;
  Dtype best_dtype;
  void* best;
  std::int32_t* clock;
  std::uint8_t* outcome;
  std::int32_t* num_reductions;
  std::int64_t* num_steps;  ///< one counter for the batch
  double* rate;
  float* published;
  const std::int64_t* offsets;
  std::int64_t num_groups;
  Settings settings;

  /// The first group of a lane; of the lane past the last, the number of groups.
  PLATEAU_HD std::int64_t first_group(std::int64_t lane) const noexcept {
    return offsets ? offsets[lane] : lane;
  }
};

}  // namespace plateau
