// SPDX-License-Identifier: BSD-3-Clause
// Calls one after the other with no Python code in between, so that nothing comes between them.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <new>
#include <vector>

namespace plateau {

/// Calls each of these, of functions that are not Python's. Before a function writes it may want a
/// few small objects: where there is no memory for them it is called again, once memory that was
/// set aside before the first is given back. Tensors do not come out of that.
inline void call_each(const std::vector<pybind11::object>& calls) {
  constexpr std::size_t kAside = 1U << 16;  // less than malloc maps, so that it can be shared out
  struct Aside {
    void* memory = PyMem_RawMalloc(kAside);
    ~Aside() { PyMem_RawFree(memory); }
  } aside;
  if (!aside.memory) throw std::bad_alloc();
  for (const pybind11::object& call : calls) {
    PyObject* answer = PyObject_CallNoArgs(call.ptr());
    if (!answer && aside.memory && PyErr_ExceptionMatches(PyExc_MemoryError)) {
      PyErr_Clear();
      PyMem_RawFree(aside.memory);
      aside.memory = nullptr;
      answer = PyObject_CallNoArgs(call.ptr());
    }
    if (!answer) throw pybind11::error_already_set();
    Py_DECREF(answer);
  }
}

}  // namespace plateau
