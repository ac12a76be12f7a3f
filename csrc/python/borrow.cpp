// SPDX-License-Identifier: BSD-3-Clause
#include "python/borrow.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

#if defined(__linux__) && defined(__x86_64__)
#include <sys/auxv.h>
#include <unistd.h>
#endif

namespace py = pybind11;

namespace plateau {
namespace {

constexpr std::uintptr_t kHigh = std::uintptr_t{1} << 40;
constexpr std::uintptr_t kHighestOffset = std::uintptr_t{1} << 22;  // a program lies above it
constexpr std::uintptr_t kDevice = std::uintptr_t{1} << 32;         // and the memory of a device

/// What is known of a type of arrays.
struct Producer {
  PyObject* type = nullptr;  // owned by the one that is remembered: its address cannot be reused
  decltype(DLPackExchangeAPI::dltensor_from_py_object_no_sync) describe = nullptr;
  CurrentStream current_stream = nullptr;
  PyObject* is_neg = nullptr;  // owned: torch marks z.conj().imag and leaves the bytes as they are
};

Producer inspect(PyObject* type) noexcept {
  Producer producer;
  producer.type = Py_NewRef(type);
  PyObject* capsule = PyObject_GetAttrString(type, "__dlpack_c_exchange_api__");
  if (capsule) {
    const auto* api =
        static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
    if (api && api->header.version.major == DLPACK_MAJOR_VERSION) {
      producer.describe = api->dltensor_from_py_object_no_sync;
      producer.current_stream = api->current_work_stream;
    }
    Py_DECREF(capsule);
  }
  PyErr_Clear();  // no interface is no error
  producer.is_neg = PyObject_GetAttrString(type, "is_neg");
  PyErr_Clear();
  return producer;
}

bool negated(PyObject* is_neg, PyObject* array) noexcept {
  PyObject* answer = PyObject_CallOneArg(is_neg, array);
  if (!answer) PyErr_Clear();
  const bool plain = answer == Py_False;
  Py_XDECREF(answer);
  return !plain;
}

/// The type met last is remembered: programs step with one array type all their life. To ask a type
/// can run any code of its metaclass, which may come here again, so what is remembered is replaced
/// only when the asking is over, and what is returned is a copy.
Producer producer_of(py::handle array) noexcept {
  static Producer remembered;
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(array.ptr()));
  if (type == remembered.type) return remembered;
  const Producer found = inspect(type);
  const Producer old = std::exchange(remembered, found);
  Py_XDECREF(old.is_neg);
  Py_XDECREF(old.type);
  return found;
}

bool on_boundary(const DLTensor& tensor) noexcept {
  return reinterpret_cast<std::uintptr_t>(data_of(tensor)) % 64 == 0;
}

}  // namespace

bool describe(py::handle array, DLTensor& out) noexcept {
  const Producer producer = producer_of(array);
  if (producer.describe && producer.describe(array.ptr(), &out) == 0) return true;
  PyErr_Clear();
  return false;
}

bool borrow(py::handle array, DLTensor& out) noexcept {
  // The question may run any code, so what it is asked of is described afterwards.
  PyObject* is_neg = Py_XNewRef(producer_of(array).is_neg);  // others may be asked meanwhile
  const bool plain = !is_neg || !negated(is_neg, array.ptr());
  Py_XDECREF(is_neg);
  if (!plain) return false;
  return describe(array, out);
}

bool borrow_scalar(py::handle array, DLTensor& out) noexcept {
  if (!describe(array, out)) return false;
  if (out.ndim == 0 && on_boundary(out)) return true;
  return borrow(array, out);
}

const void* data_of(const DLTensor& tensor) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
#if defined(__linux__) && defined(__x86_64__)
  // Memory is mapped far above 2^40, but for a heap that follows a program loaded low down.
  static const std::uintptr_t program = std::min<std::uintptr_t>(getauxval(AT_PHDR), kHigh);
  const bool low = address < kHigh && on_cpu(tensor);
  if (low && (address < program || address >= reinterpret_cast<std::uintptr_t>(sbrk(0)))) {
    return nullptr;
  }
#endif
  const std::uintptr_t lowest = on_cpu(tensor) ? kHighestOffset : kDevice;
  return address < lowest ? nullptr : reinterpret_cast<const void*>(address);
}

CurrentStream current_stream_of(py::handle array) noexcept {
  return producer_of(array).current_stream;
}

std::optional<Dtype> dtype_of(DLDataType type) noexcept {
  if (type.lanes != 1) return std::nullopt;
  switch (type.code << 8 | type.bits) {
    case kDLBool << 8 | 8:
      return Dtype::kBool;
    case kDLInt << 8 | 8:
      return Dtype::kInt8;
    case kDLInt << 8 | 16:
      return Dtype::kInt16;
    case kDLInt << 8 | 32:
      return Dtype::kInt32;
    case kDLInt << 8 | 64:
      return Dtype::kInt64;
    case kDLUInt << 8 | 8:
      return Dtype::kUInt8;
    case kDLUInt << 8 | 16:
      return Dtype::kUInt16;
    case kDLUInt << 8 | 32:
      return Dtype::kUInt32;
    case kDLUInt << 8 | 64:
      return Dtype::kUInt64;
    case kDLFloat << 8 | 16:
      return Dtype::kFloat16;
    case kDLFloat << 8 | 32:
      return Dtype::kFloat32;
    case kDLFloat << 8 | 64:
      return Dtype::kFloat64;
    case kDLBfloat << 8 | 16:
      return Dtype::kBFloat16;
    default:
      return std::nullopt;
  }
}

}  // namespace plateau
