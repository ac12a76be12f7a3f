// SPDX-License-Identifier: BSD-3-Clause
#include "python/rates.hpp"

#include <algorithm>
#include <cstddef>

#include "plateau/rule.hpp"
#include "python/described.hpp"
#include "python/register.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

PyObject* const kLr = PyUnicode_InternFromString("lr");
PyObject* const kParams = PyUnicode_InternFromString("params");
PyObject* const kParamGroups = PyUnicode_InternFromString("param_groups");

/// Whether `group[key]` is the very object `value`.
bool holds(PyObject* group, PyObject* key, PyObject* value) noexcept {
  if (!PyDict_Check(group)) return false;
  PyObject* found = PyDict_GetItemWithError(group, key);  // faster: saves no error
  if (!found) PyErr_Clear();
  return found == value;
}

/// The rate in a plain dict, borrowed; null for anything else.
PyObject* rate_in(PyObject* group) noexcept {
  return PyDict_CheckExact(group) ? PyDict_GetItemWithError(group, kLr) : nullptr;
}

/// Compares from position `at` on, the lists of parameters too unless `params` is null; returns the
/// position after the last group, or -1.
Py_ssize_t match(PyObject* groups, PyObject* rates, PyObject* params, Py_ssize_t at) noexcept {
  if (!PyList_Check(groups) || !PyList_Check(rates)) return -1;
  const Py_ssize_t count = PyList_GET_SIZE(groups);
  if (at + count > PyList_GET_SIZE(rates)) return -1;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* group = PyList_GET_ITEM(groups, i);
    if (!holds(group, kLr, PyList_GET_ITEM(rates, at + i))) return -1;
    if (params && !holds(group, kParams, PyList_GET_ITEM(params, at + i))) return -1;
  }
  return at + count;
}

bool same_groups(py::handle optimizers, py::handle rates, py::handle params) noexcept {
  for (PyObject* list : {optimizers.ptr(), rates.ptr(), params.ptr()}) {
    if (!PyList_Check(list)) return false;
  }
  if (PyList_GET_SIZE(rates.ptr()) != PyList_GET_SIZE(params.ptr())) return false;
  Py_ssize_t at = 0;
  for (Py_ssize_t i = 0; at >= 0 && i < PyList_GET_SIZE(optimizers.ptr()); ++i) {
    PyObject* groups = PyObject_GetAttr(PyList_GET_ITEM(optimizers.ptr(), i), kParamGroups);
    at = groups ? match(groups, rates.ptr(), params.ptr(), at) : -1;
    Py_XDECREF(groups);
  }
  PyErr_Clear();
  return at == PyList_GET_SIZE(rates.ptr());
}

/// Writes rates into param groups, and then attributes of `owner`, with no Python code in between
/// where groups are plain dicts.
void put_rates(const py::typing::List<py::object>& groups,
               const py::typing::List<py::object>& rates, const py::object& owner,
               const Named& names) {
  for (std::size_t i = 0; i < std::min(groups.size(), rates.size()); ++i) {
    if (PyObject_SetItem(groups[i].ptr(), kLr, rates[i].ptr()) != 0) throw py::error_already_set();
  }
  for (const auto& [name, value] : names) {
    if (PyObject_GenericSetAttr(owner.ptr(), name.ptr(), value.ptr()) != 0) {
      throw py::error_already_set();
    }
  }
}

}  // namespace

bool same_rates(py::handle groups, py::handle rates) noexcept {
  return match(groups.ptr(), rates.ptr(), nullptr, 0) >= 0 &&
         PyList_GET_SIZE(groups.ptr()) == PyList_GET_SIZE(rates.ptr());
}

bool is_number(PyObject* value) noexcept {
  if (PyFloat_CheckExact(value)) return true;
  if (!PyLong_CheckExact(value)) return false;
  const bool fits = PyLong_AsDouble(value) != -1.0 || !PyErr_Occurred();
  PyErr_Clear();
  return fits;
}

PyObject* cut_floats(PyObject* groups, PyObject* floors, double factor, double eps) noexcept {
  const Py_ssize_t count = PyList_CheckExact(groups) ? PyList_GET_SIZE(groups) : -1;
  if (!PyList_CheckExact(floors) || PyList_GET_SIZE(floors) != count) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* rate = rate_in(PyList_GET_ITEM(groups, i));
    if (!rate || !PyFloat_CheckExact(rate) || !is_number(PyList_GET_ITEM(floors, i))) {
      return nullptr;
    }
  }
  PyObject* rates = PyList_New(count);  // first of those before, to put back if memory ends
  for (Py_ssize_t i = 0; rates && i < count; ++i) {
    PyList_SET_ITEM(rates, i, Py_NewRef(rate_in(PyList_GET_ITEM(groups, i))));
  }
  for (Py_ssize_t i = 0; rates && i < count; ++i) {
    PyObject* group = PyList_GET_ITEM(groups, i);
    const double old = PyFloat_AS_DOUBLE(rate_in(group));
    const double rate = cut(old, factor, PyFloat_AsDouble(PyList_GET_ITEM(floors, i)), eps);
    if (!(rate < old)) continue;
    PyObject* lowered = PyFloat_FromDouble(rate);
    if (lowered) PyDict_SetItem(group, kLr, lowered);  // of a key that is there: takes no memory
    Py_XDECREF(lowered);
    for (Py_ssize_t k = i; !lowered && k-- > 0;) {
      PyDict_SetItem(PyList_GET_ITEM(groups, k), kLr, PyList_GET_ITEM(rates, k));
    }
    if (!lowered) Py_CLEAR(rates);
  }
  for (Py_ssize_t i = 0; rates && i < count; ++i) {
    PyList_SetItem(rates, i, Py_NewRef(rate_in(PyList_GET_ITEM(groups, i))));
  }
  return rates;
}

void register_rates(py::module_& m) {
  m.def("put_rates", &put_rates, py::arg("groups"), py::arg("rates"), py::arg("owner"),
        py::arg("names"),
        "Write rates into param groups, and then attributes of `owner`, at once.");
  m.def("same_groups", &same_groups, py::arg("optimizers"), py::arg("rates"), py::arg("params"),
        "Whether the groups of `optimizers`, in order, are those with the very rates and lists of "
        "parameters in the lists `rates` and `params`.");
}

}  // namespace plateau
