// SPDX-License-Identifier: BSD-3-Clause
#include "python/connect.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "python/borrow.hpp"
#include "python/described.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

DLTensor best_of(const Named& tensors) {
  DLTensor best;
  if (!borrow(tensors["best"], best) || best.ndim != 1) {
    throw std::invalid_argument("best: expected a vector");
  }
  if (best.device.device_type != kDLCUDA && !on_cpu(best)) {
    throw std::invalid_argument("best: expected a CPU or CUDA tensor");
  }
  return best;
}

}  // namespace

Connected::Connected(const Named& tensors, const Named& settings) {
  const DLTensor best = best_of(tensors);
  device = best.device;
  const Described given(tensors, device), chosen(settings, device);
  const std::int64_t n = best.shape[0], groups = given.size("rate");
  lanes.n = n;
  lanes.num_groups = groups;
  lanes.best_dtype = dtype_of(best.dtype).value_or(Dtype::kBool);
  lanes.offsets = given.pointer<std::int64_t>("offsets", n + 1);
  if (!lanes.offsets && groups != n) throw std::invalid_argument("rate: one per lane");
  lanes.events_capacity = given.size("events_lane");
  if (given.has("recent")) {
    const std::int64_t rows = given.size("recent") / std::max<std::int64_t>(n, 1);
    lanes.window_rows = static_cast<std::int32_t>(
        std::clamp<std::int64_t>(rows, 1, std::numeric_limits<std::int32_t>::max()));
  }
  const auto size_of = [&](Of of) {
    switch (of) {
      case Of::kLane:
        return n;
      case Of::kGroup:
        return groups;
      case Of::kCount:
        return std::max<std::int64_t>(lanes.num_counts(lanes.n), 1);
      case Of::kBatch:
        return std::int64_t{1};
      case Of::kWindow:
        return lanes.window_rows * n;
      default:
        return lanes.events_capacity;
    }
  };
#define PLATEAU_FIELD(name, type, of, first, domain, who) \
  lanes.state.name = given.field<type>(#name, size_of(Of::of), lanes.best_dtype);
  PLATEAU_STATE(PLATEAU_FIELD)
#undef PLATEAU_FIELD
#define PLATEAU_FIELD(name, type, of, off, domain, part, help) \
  lanes.settings.name = chosen.setting<type>(#name, size_of(Of::of));
  PLATEAU_SETTINGS(PLATEAU_FIELD)
#undef PLATEAU_FIELD
  lanes.settle();
}

Record record_of(const Named& rows, const Lanes& lanes, std::int64_t epochs, DLDevice device) {
  const Described given(rows, device);
  const std::int64_t entries = epochs * lanes.n;
  Record record;
  record.first_cut = given.pointer<std::int32_t>("first_cut", lanes.n);
  record.wasted = given.pointer<std::int32_t>("wasted", lanes.n);
  record.published = given.pointer<float>("published", epochs * lanes.num_groups);
  record.outcome = given.pointer<std::uint8_t>("outcome", entries);
  record.best = given.best("best", lanes.best_dtype, entries);
  record.clock = given.pointer<std::int32_t>("clock", entries);
  record.value = given.pointer<double>("value", entries);
  record.why = given.pointer<std::uint8_t>("why", entries);
  record.gate = given.pointer<double>("gate", entries);
  record.count = given.pointer<std::int32_t>("count", entries);
  record.limit = given.pointer<std::int32_t>("limit", entries);
  return record;
}

}  // namespace plateau
