// SPDX-License-Identifier: BSD-3-Clause
// A method that CPython calls without pybind11's dispatcher: worth it only for `step`, which is
// called once per validation and whose whole work may be shorter than the dispatch.
#pragma once

#include <pybind11/pybind11.h>

namespace plateau {

/// `Step` is `PyObject* (Self&, PyObject* const* args)`; it must not throw.
template <class Self, Py_ssize_t kArgs, auto Step>
PyObject* call_fast(PyObject* self, PyObject* const* args, Py_ssize_t count) noexcept {
  if (count != kArgs) {
    return PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", kArgs, count);
  }
  auto* instance = reinterpret_cast<pybind11::detail::instance*>(self);
  auto* value = instance->get_value_and_holder().template value_ptr<Self>();
  if (!value) return PyErr_Format(PyExc_TypeError, "__init__ was not called");
  return Step(*value, args);
}

/// Binds it as `name`; CPython checks the type of `self`. `doc` begins with a
/// signature as pybind11 writes them, for the stub generator.
template <class Self, Py_ssize_t kArgs, auto Step>
void def_fast(pybind11::class_<Self>& type, const char* name, const char* doc) {
  static PyMethodDef method = {
      name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&call_fast<Self, kArgs, Step>)),
      METH_FASTCALL, doc};
  type.attr(name) = pybind11::reinterpret_steal<pybind11::object>(
      PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &method));
}

}  // namespace plateau
