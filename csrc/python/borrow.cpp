// SPDX-License-Identifier: BSD-3-Clause
#include "python/borrow.hpp"

#include <algorithm>
#include <cstdint>

#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace py = pybind11;

namespace plateau {
namespace {

/// What is known of the type met last; programs step with one array type all their life.
struct Producer {
  PyObject* type = nullptr;  // owned, so that the address cannot be reused
  decltype(DLPackExchangeAPI::dltensor_from_py_object_no_sync) describe = nullptr;
  CurrentStream current_stream = nullptr;
  bool can_be_negated = false;  // torch marks z.conj().imag and leaves the bytes as they are
};

std::uintptr_t lowest_address() noexcept {
  std::uintptr_t program = std::uintptr_t{1} << 22;
#if defined(__linux__)
  if (const auto header = getauxval(AT_PHDR)) program = header;
#endif
  return std::min(program, std::uintptr_t{1} << 32);
}

PyObject* const kIsNeg = PyUnicode_InternFromString("is_neg");

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
  producer.can_be_negated = PyObject_HasAttr(type, kIsNeg) == 1;
  return producer;
}

bool negated(PyObject* array) noexcept {
  PyObject* args[] = {array};
  PyObject* answer = PyObject_VectorcallMethod(kIsNeg, args, 1, nullptr);
  if (!answer) PyErr_Clear();
  const bool plain = answer == Py_False;
  Py_XDECREF(answer);
  return !plain;
}

const Producer& producer_of(py::handle array) noexcept {
  static Producer producer;
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(array.ptr()));
  if (type != producer.type) {
    Py_XDECREF(producer.type);
    producer = inspect(type);
  }
  return producer;
}

template <class IsPlain>
bool borrow_unless(py::handle array, DLTensor& out, IsPlain is_plain) noexcept {
  const Producer& producer = producer_of(array);
  if (!producer.describe) return false;
  if (producer.describe(array.ptr(), &out) != 0) {
    PyErr_Clear();
    return false;
  }
  return !producer.can_be_negated || is_plain(out) || !negated(array.ptr());
}

}  // namespace

const std::uintptr_t kLowestAddress = lowest_address();

bool borrow(py::handle array, DLTensor& out) noexcept {
  return borrow_unless(array, out, [](const DLTensor&) { return false; });
}

bool borrow_scalar(py::handle array, DLTensor& out) noexcept {
  return borrow_unless(array, out, [](const DLTensor& tensor) {
    return tensor.ndim == 0 && reinterpret_cast<std::uintptr_t>(data_of(tensor)) % 64 == 0;
  });
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
