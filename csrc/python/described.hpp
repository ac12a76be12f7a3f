// SPDX-License-Identifier: BSD-3-Clause
// Vectors that Python hands over by name, checked: what they hold, how many, and where.
#pragma once

#include <dlpack/dlpack.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "plateau/settings.hpp"
#include "plateau/state.hpp"
#include "plateau/types.hpp"
#include "python/borrow.hpp"

namespace plateau {

using Named = pybind11::typing::Dict<pybind11::str, pybind11::object>;

inline bool same(DLDevice one, DLDevice other) {
  return one.device_type == other.device_type && one.device_id == other.device_id;
}

template <class T>
constexpr Dtype dtype_for() {
  if constexpr (std::is_same_v<T, double>) return Dtype::kFloat64;
  if constexpr (std::is_same_v<T, float>) return Dtype::kFloat32;
  if constexpr (std::is_same_v<T, std::int32_t>) return Dtype::kInt32;
  if constexpr (std::is_same_v<T, std::int64_t>) return Dtype::kInt64;
  return Dtype::kUInt8;
}

template <class T>
constexpr const char* name_for() {
  if constexpr (std::is_same_v<T, double>) return "float64";
  if constexpr (std::is_same_v<T, float>) return "float32";
  if constexpr (std::is_same_v<T, std::int32_t>) return "int32";
  if constexpr (std::is_same_v<T, std::int64_t>) return "int64";
  return "uint8";
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
      throw std::invalid_argument(std::string(name) + ": expected " + name_for<T>() +
                                  ", got another dtype");
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
    const pybind11::object value = tensors_[name];
    if (!PyFloat_Check(value.ptr()) && !PyLong_Check(value.ptr())) {
      return {pointer<T>(name, size), T{}};
    }
    return {nullptr, static_cast<T>(value.cast<double>())};
  }

 private:
  const Named& tensors_;
  DLDevice device_;
};

}  // namespace plateau
