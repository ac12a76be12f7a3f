// SPDX-License-Identifier: BSD-3-Clause
// The rates in an optimizer's param groups: noticing, at the price of a pointer comparison a group,
// that somebody replaced one, and cutting them.
#pragma once

#include <pybind11/pybind11.h>

namespace plateau {

/// Whether `groups` (a list of param groups) hold, as "lr", the very objects in the list `rates`.
bool same_rates(pybind11::handle groups, pybind11::handle rates) noexcept;

/// Whether `value` is a float, or an int that is one; either converts without running Python code.
bool is_number(PyObject* value) noexcept;

/// Cuts the rate of each of `groups` by the rule and returns the rates in a new list. Null, and
/// nothing changed, unless both are lists of one length, the groups plain dicts, their rates floats
/// and the floors numbers; with a Python error where memory runs out. Runs no Python code.
PyObject* cut_floats(PyObject* groups, PyObject* floors, double factor, double eps) noexcept;

}  // namespace plateau
