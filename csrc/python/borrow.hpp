// SPDX-License-Identifier: BSD-3-Clause
// Arrays from Python, read where they lie: the DLPack C exchange API, with no torch header.
#pragma once

#include <dlpack/dlpack.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>

#include "plateau/types.hpp"

namespace plateau {

/// Describe `array` without taking a reference: valid while the caller holds the array, and until
/// it runs Python code. False, with no Python error set, when it has no exchange API or cannot be
/// read in place (sparse, a vmap wrapper): the caller explains or converts. A lazily negated view
/// is described with the wrong sign, and one whose memory was freed may seem to lie somewhere.
bool describe(pybind11::handle array, DLTensor& out) noexcept;

/// The same, and without data where the memory was freed: storage without any comes as a null base
/// plus the offset of the view, which low addresses are compared with, by a call into Python.
bool locate(pybind11::handle array, DLTensor& out) noexcept;

/// The same, and false for a lazily negated view too, which costs a call into Python for single
/// numbers and where there are gaps between them.
bool borrow(pybind11::handle array, DLTensor& out) noexcept;

/// The same, of what is thought to be a single number.
bool borrow_one(pybind11::handle array, DLTensor& out) noexcept;

/// The same, without that call for a scalar on a 64-byte boundary, as a freshly computed one lies:
/// negated numbers are the imaginary halves of complex ones, which torch puts on such a boundary,
/// so the halves are not on one. (They could be in misaligned memory of another library, or by
/// as_strided to a real half.) The call would cost half of the drop-in's step.
bool borrow_scalar(pybind11::handle array, DLTensor& out) noexcept;

/// What holds the memory of a tensor, whatever else becomes of the tensor; null for other arrays.
pybind11::object storage_of(pybind11::handle array) noexcept;

/// Asks a library which of its streams is current on a device; see DLPackCurrentWorkStream.
using CurrentStream = decltype(DLPackExchangeAPI::current_work_stream);

/// The one of the library that `array` belongs to, null if it has no exchange API.
CurrentStream current_stream_of(pybind11::handle array) noexcept;

std::optional<Dtype> dtype_of(DLDataType type) noexcept;

/// First byte of the elements, or null where there is no memory.
const void* data_of(const DLTensor& tensor) noexcept;

inline bool on_cpu(const DLTensor& tensor) noexcept {
  return tensor.device.device_type == kDLCPU || tensor.device.device_type == kDLCUDAHost;
}

}  // namespace plateau
