// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <pybind11/pybind11.h>

namespace plateau {

void register_lanes(pybind11::module_& m);
void register_lane(pybind11::module_& m);
void register_optimizers(pybind11::module_& m);
void register_rates(pybind11::module_& m);
void register_tables(pybind11::module_& m);

}  // namespace plateau
