// SPDX-License-Identifier: BSD-3-Clause
// Arrays from Python, read where they lie: the DLPack C exchange API, with no torch header.
#pragma once

#include <dlpack/dlpack.h>
#include <pybind11/pybind11.h>

#include <optional>

#include "plateau/types.hpp"

namespace plateau {

/// Describe `array` without taking a reference: valid while the caller holds the array. False,
/// with no Python error set, when it has no exchange API or cannot be read in place (sparse, a
/// vmap wrapper, a lazily negated view): the caller explains or converts.
bool borrow(pybind11::handle array, DLTensor& out) noexcept;

std::optional<Dtype> dtype_of(DLDataType type) noexcept;

/// First byte of the elements; null for FakeTensor, DTensor and freed storage.
inline const void* data_of(const DLTensor& tensor) noexcept {
  return tensor.data ? static_cast<const char*>(tensor.data) + tensor.byte_offset : nullptr;
}

inline bool on_cpu(const DLTensor& tensor) noexcept {
  return tensor.device.device_type == kDLCPU || tensor.device.device_type == kDLCUDAHost;
}

}  // namespace plateau
