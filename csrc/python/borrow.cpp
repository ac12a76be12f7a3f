// SPDX-License-Identifier: BSD-3-Clause
#include "python/borrow.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace py = pybind11;

namespace plateau {
namespace {

// Where no array has memory, and below what an address may be the offset of a view instead. Above
// it lies what Linux and Windows map, but for the heap of a program that is loaded low down, as
// Debian's and Ubuntu's Python is.
constexpr std::uintptr_t kNowhere = std::uintptr_t{1} << 22;
constexpr std::uintptr_t kHigh = std::uintptr_t{1} << 40;

/// What is known of a type of arrays.
struct Producer {
  PyObject* type = nullptr;  // owned by the one that is remembered: its address cannot be reused
  decltype(DLPackExchangeAPI::dltensor_from_py_object_no_sync) describe = nullptr;
  CurrentStream current_stream = nullptr;
  PyObject* is_neg = nullptr;  // owned: torch marks z.conj().imag and leaves the bytes as they are
  PyObject* storage_offset = nullptr;   // owned
  PyObject* untyped_storage = nullptr;  // owned
};

/// An attribute of a type, null if it has none.
PyObject* method_of(PyObject* type, const char* name) noexcept {
  PyObject* method = PyObject_GetAttrString(type, name);
  PyErr_Clear();
  return method;
}

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
  producer.is_neg = method_of(type, "is_neg");
  producer.storage_offset = method_of(type, "storage_offset");
  producer.untyped_storage = method_of(type, "untyped_storage");
  return producer;
}

bool negated(PyObject* is_neg, PyObject* array) noexcept {
  PyObject* answer = PyObject_CallOneArg(is_neg, array);
  if (!answer) PyErr_Clear();
  const bool plain = answer == Py_False;
  Py_XDECREF(answer);
  return !plain;
}

/// The types met last are remembered: programs step with an array type or two all their life, and
/// torch's optimizers with parameters and gradients in turn. To ask a type can run any code of its
/// metaclass, which may come here again, so what is remembered is replaced only when the asking is
/// over, and what is returned is a copy.
Producer producer_of(py::handle array) noexcept {
  static std::array<Producer, 4> remembered;
  static std::size_t next = 0;
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(array.ptr()));
  for (const Producer& known : remembered) {
    if (type == known.type) return known;
  }
  const Producer found = inspect(type);
  const Producer old = std::exchange(remembered[next++ % remembered.size()], found);
  Py_XDECREF(old.is_neg);
  Py_XDECREF(old.storage_offset);
  Py_XDECREF(old.untyped_storage);
  Py_XDECREF(old.type);
  return found;
}

std::uintptr_t address_of(const DLTensor& tensor) noexcept {
  return reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
}

bool may_be_an_offset(const DLTensor& tensor) noexcept {
  const std::uintptr_t address = address_of(tensor);
  return address >= kNowhere && address < kHigh;
}

/// Negated numbers are the imaginary halves of complex ones, and no two of these lie side by side.
bool may_be_negated(const DLTensor& tensor) noexcept {
  for (int d = 0; d < tensor.ndim; ++d) {
    if (tensor.shape[d] > 1 && tensor.strides[d] == 1) return false;
  }
  return true;
}

/// The answer of a method to `array`; null, with no Python error set, where there is none.
py::object asked(PyObject* method, py::handle array) noexcept {
  PyObject* question = Py_XNewRef(method);  // the question may run any code
  PyObject* answer = question ? PyObject_CallOneArg(question, array.ptr()) : nullptr;
  if (question && !answer) PyErr_Clear();
  Py_XDECREF(question);
  return py::reinterpret_steal<py::object>(answer);
}

/// How many elements of its storage lie before `array`, 0 if there is no such thing.
std::int64_t offset_of(py::handle array) noexcept {
  const py::object answer = asked(producer_of(array).storage_offset, array);
  const std::int64_t offset = answer ? PyLong_AsLongLong(answer.ptr()) : 0;
  PyErr_Clear();
  return offset;
}

}  // namespace

bool describe(py::handle array, DLTensor& out) noexcept {
  const Producer producer = producer_of(array);
  if (producer.describe && producer.describe(array.ptr(), &out) == 0) return true;
  PyErr_Clear();
  return false;
}

bool locate(py::handle array, DLTensor& out) noexcept {
  if (!describe(array, out)) return false;
  if (!may_be_an_offset(out)) return true;
  const std::int64_t offset = offset_of(array);
  if (!describe(array, out)) return false;  // the question may run any code
  const auto size = static_cast<std::uintptr_t>(out.dtype.bits / 8);
  if (address_of(out) == static_cast<std::uintptr_t>(offset) * size) {
    out.data = nullptr;
    out.byte_offset = 0;
  }
  return true;
}

bool borrow(py::handle array, DLTensor& out) noexcept {
  if (!describe(array, out)) return false;
  if (!may_be_negated(out)) return !may_be_an_offset(out) || locate(array, out);
  return borrow_one(array, out);
}

bool borrow_one(py::handle array, DLTensor& out) noexcept {
  // The question may run any code, so what it is asked of is described afterwards.
  PyObject* is_neg = Py_XNewRef(producer_of(array).is_neg);  // others may be asked meanwhile
  const bool plain = !is_neg || !negated(is_neg, array.ptr());
  Py_XDECREF(is_neg);
  return plain && locate(array, out);
}

bool borrow_scalar(py::handle array, DLTensor& out) noexcept {
  if (!describe(array, out)) return false;
  if (out.ndim == 0 && address_of(out) % 64 == 0 && !may_be_an_offset(out)) return true;
  return borrow_one(array, out);
}

py::object storage_of(py::handle array) noexcept {
  return asked(producer_of(array).untyped_storage, array);
}

const void* data_of(const DLTensor& tensor) noexcept {
  const std::uintptr_t address = address_of(tensor);
  return address < kNowhere ? nullptr : reinterpret_cast<const void*>(address);
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
