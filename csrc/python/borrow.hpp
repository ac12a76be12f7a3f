// SPDX-License-Identifier: BSD-3-Clause
// Arrays from Python, read where they lie: the DLPack C exchange API, with no torch header.
#pragma once

#include <dlpack/dlpack.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>

#include "plateau/types.hpp"

namespace plateau {

/// Describe `array` without taking a reference: valid while the caller holds the array. False,
/// with no Python error set, when it has no exchange API or cannot be read in place (sparse, a
/// vmap wrapper, a lazily negated view): the caller explains or converts.
bool borrow(pybind11::handle array, DLTensor& out) noexcept;

/// The same for one number, faster by half: torch is not asked whether the number is lazily negated
/// if it lies on a 64-byte boundary, as every freshly computed one does. A negated number is the
/// imaginary half of a complex one, which torch puts on such a boundary, so the half is not on one.
/// (It could be in misaligned memory of another library, or by as_strided to a real half.)
bool borrow_scalar(pybind11::handle array, DLTensor& out) noexcept;

/// Asks a library which of its streams is current on a device; see DLPackCurrentWorkStream.
using CurrentStream = decltype(DLPackExchangeAPI::current_work_stream);

/// The one of the library that `array` belongs to, null if it has no exchange API.
CurrentStream current_stream_of(pybind11::handle array) noexcept;

std::optional<Dtype> dtype_of(DLDataType type) noexcept;

/// No memory of this process lies lower: its program does not, and heaps lie above that.
extern const std::uintptr_t kLowestAddress;

/// First byte of the elements, or null where there is no memory: FakeTensor, DTensor and freed
/// storage come as a null base plus the offset of the view.
inline const void* data_of(const DLTensor& tensor) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
  return address < kLowestAddress ? nullptr : reinterpret_cast<const void*>(address);
}

inline bool on_cpu(const DLTensor& tensor) noexcept {
  return tensor.device.device_type == kDLCPU || tensor.device.device_type == kDLCUDAHost;
}

}  // namespace plateau
