// SPDX-License-Identifier: BSD-3-Clause
#include "python/rates.hpp"

#include "plateau/rule.hpp"
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

/// Whether `value` is a float, or an int that is one; either converts without running Python code.
bool is_number(PyObject* value) noexcept {
  if (PyFloat_CheckExact(value)) return true;
  if (!PyLong_CheckExact(value)) return false;
  const bool fits = PyLong_AsDouble(value) != -1.0 || !PyErr_Occurred();
  PyErr_Clear();
  return fits;
}

bool cut_floats(py::handle group_list, py::handle floor_list, double factor, double eps) {
  PyObject *groups = group_list.ptr(), *floors = floor_list.ptr();
  if (!PyList_Check(groups) || !PyList_Check(floors)) return false;
  const Py_ssize_t count = PyList_GET_SIZE(groups);
  if (PyList_GET_SIZE(floors) != count) return false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* group = PyList_GET_ITEM(groups, i);
    PyObject* rate = PyDict_Check(group) ? PyDict_GetItem(group, kLr) : nullptr;
    if (!rate || !PyFloat_CheckExact(rate) || !is_number(PyList_GET_ITEM(floors, i))) return false;
  }
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* group = PyList_GET_ITEM(groups, i);
    const double old = PyFloat_AS_DOUBLE(PyDict_GetItem(group, kLr));
    const double rate = cut(old, factor, PyFloat_AsDouble(PyList_GET_ITEM(floors, i)), eps);
    if (rate < old) {
      const py::float_ lowered(rate);
      if (PyDict_SetItem(group, kLr, lowered.ptr()) != 0) throw py::error_already_set();
    }
  }
  return true;
}

}  // namespace

bool same_rates(py::handle groups, py::handle rates) noexcept {
  return match(groups.ptr(), rates.ptr(), 0) >= 0 &&
         PyList_GET_SIZE(groups.ptr()) == PyList_GET_SIZE(rates.ptr());
}

void register_rates(py::module_& m) {
  m.def("same_rates", &same_rates_of_all, py::arg("optimizers"), py::arg("rates"),
        "Whether the groups of `optimizers`, in order, hold the very objects in the list `rates`.");
  m.def(
      "cut_floats", &cut_floats, py::arg("groups"), py::arg("floors"), py::arg("factor"),
      py::arg("eps"),
      "Cut the rate of every param group. False, and nothing changed, unless all rates are floats "
      "and there is a floor for each.");
}

}  // namespace plateau
