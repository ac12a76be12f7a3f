// SPDX-License-Identifier: BSD-3-Clause
#include "python/connect.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "python/borrow.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

template <class T>
constexpr Dtype dtype_for() {
  if constexpr (std::is_same_v<T, double>) return Dtype::kFloat64;
  if constexpr (std::is_same_v<T, float>) return Dtype::kFloat32;
  if constexpr (std::is_same_v<T, std::int32_t>) return Dtype::kInt32;
  if constexpr (std::is_same_v<T, std::int64_t>) return Dtype::kInt64;
  return Dtype::kUInt8;
}

/// Tensors that must be contiguous, of rank 1 and on one device.
class Described {
 public:
  Described(const Named& tensors, DLDevice device) : tensors_(tensors), device_(device) {}

  bool has(const char* name) const { return tensors_.contains(name); }

  DLTensor operator()(const char* name) const {
    DLTensor tensor;
    const bool fits = borrow(tensors_[name], tensor) && tensor.ndim == 1 &&
                      (tensor.shape[0] < 2 || tensor.strides[0] == 1);
    if (!fits) throw std::invalid_argument(std::string(name) + ": expected a contiguous vector");
    if (!same(device_, tensor.device)) {
      throw std::invalid_argument(std::string(name) + ": on another device");
    }
    if (!data_of(tensor) && tensor.shape[0] > 0) {
      throw std::invalid_argument(std::string(name) + ": without memory");
    }
    return tensor;
  }

  std::int64_t size(const char* name) const { return has(name) ? (*this)(name).shape[0] : 0; }

  /// Null where there is no such tensor.
  template <class T>
  T* pointer(const char* name, std::int64_t size) const {
    if (!has(name)) return nullptr;
    const DLTensor tensor = (*this)(name);
    if (dtype_of(tensor.dtype) != dtype_for<T>()) {
      throw std::invalid_argument(std::string(name) + ": wrong dtype");
    }
    if (tensor.shape[0] != size) {
      throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(size) +
                                  " values, got " + std::to_string(tensor.shape[0]));
    }
    return static_cast<T*>(const_cast<void*>(data_of(tensor)));
  }

  void* best(const char* name, Dtype dtype, std::int64_t size) const {
    if (dtype == Dtype::kFloat32) return pointer<float>(name, size);
    return pointer<double>(name, size);
  }

  template <class T>
  Pointer<T> field(const char* name, std::int64_t size, Dtype best_dtype) const {
    if constexpr (std::is_same_v<T, Best>) {
      return best(name, best_dtype, size);
    } else {
      return pointer<T>(name, size);
    }
  }

  template <class T>
  Setting<T> setting(const char* name, std::int64_t size) const {
    const py::object value = tensors_[name];
    if (!py::isinstance<py::float_>(value)) return {pointer<T>(name, size), T{}};
    return {nullptr, static_cast<T>(value.cast<double>())};
  }

 private:
  const Named& tensors_;
  DLDevice device_;
};

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

bool same(DLDevice one, DLDevice other) {
  return one.device_type == other.device_type && one.device_id == other.device_id;
}

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
        return std::max<std::int64_t>(lanes.num_counts(), 1);
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
