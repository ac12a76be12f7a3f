// SPDX-License-Identifier: BSD-3-Clause
// The rates in an optimizer's param groups: noticing, at the price of a pointer comparison a group,
// that somebody replaced one, and cutting them.
#pragma once

#include <pybind11/pybind11.h>

namespace plateau {

/// Whether `groups` (a list of param groups) hold, as "lr", the very objects in the list `rates`.
bool same_rates(pybind11::handle groups, pybind11::handle rates) noexcept;

}  // namespace plateau
