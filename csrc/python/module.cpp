// SPDX-License-Identifier: BSD-3-Clause
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include "plateau/step.hpp"
#include "python/register.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  m.doc() = "The lanes core. Private: the public names are in torch_plateau.";
  plateau::register_lanes(m);
  plateau::register_lane(m);
  plateau::register_rates(m);
  plateau::register_tables(m);
  plateau::register_optimizers(m);
  m.def(
      "build_info",
      [] {
        py::typing::Dict<py::str, py::object> info;
        info["compiler"] = PLATEAU_COMPILER;
        const plateau::CudaBuild cuda = plateau::cuda_build();
        info["cuda"] = cuda.toolkit;
        info["cuda_architectures"] = cuda.architectures;
        info["cuda_option"] = PLATEAU_CUDA_OPTION;
        return info;
      },
      "How this module was built.");
}
