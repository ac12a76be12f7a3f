// SPDX-License-Identifier: BSD-3-Clause
#include "python/rates.hpp"

#include "python/register.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

PyObject* const kLr = PyUnicode_InternFromString("lr");
PyObject* const kParamGroups = PyUnicode_InternFromString("param_groups");

/// Compares from rates[at] on; returns the position after the last group, or -1.
Py_ssize_t match(PyObject* groups, PyObject* rates, Py_ssize_t at) noexcept {
  if (!PyList_Check(groups) || !PyList_Check(rates)) return -1;
  const Py_ssize_t count = PyList_GET_SIZE(groups);
  if (at + count > PyList_GET_SIZE(rates)) return -1;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* group = PyList_GET_ITEM(groups, i);
    if (!PyDict_Check(group)) return -1;
    if (PyDict_GetItem(group, kLr) != PyList_GET_ITEM(rates, at + i)) return -1;
  }
  return at + count;
}

bool same_rates_of_all(py::handle optimizers, py::handle rates) noexcept {
  if (!PyList_Check(optimizers.ptr()) || !PyList_Check(rates.ptr())) return false;
  Py_ssize_t at = 0;
  for (Py_ssize_t i = 0; at >= 0 && i < PyList_GET_SIZE(optimizers.ptr()); ++i) {
    PyObject* groups = PyObject_GetAttr(PyList_GET_ITEM(optimizers.ptr(), i), kParamGroups);
    at = groups ? match(groups, rates.ptr(), at) : -1;
    Py_XDECREF(groups);
  }
  PyErr_Clear();
  return at == PyList_GET_SIZE(rates.ptr());
}

}  // namespace

bool same_rates(py::handle groups, py::handle rates) noexcept {
  return match(groups.ptr(), rates.ptr(), 0) >= 0 &&
         PyList_GET_SIZE(groups.ptr()) == PyList_GET_SIZE(rates.ptr());
}

void register_rates(py::module_& m) {
  m.def("same_rates", &same_rates_of_all, py::arg("optimizers"), py::arg("rates"),
        "Whether the groups of `optimizers`, in order, hold the very objects in the list `rates`.");
}

}  // namespace plateau
