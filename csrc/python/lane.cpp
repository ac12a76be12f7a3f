// SPDX-License-Identifier: BSD-3-Clause
// _core.Lane: the state of the drop-in scheduler, one lane in plain numbers. It decides; lowering
// the rates of an optimizer's groups is left to Python, where they live.
#include <cstdint>

#include "plateau/rule.hpp"
#include "plateau/step.hpp"
#include "python/borrow.hpp"
#include "python/fast.hpp"
#include "python/rates.hpp"
#include "python/register.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

/// What a step asks of Python.
enum Answer : int {
  kLower = 1,         // lower the rates, then call cool()
  kRatesChanged = 2,  // take a new snapshot of the rates
  kUnreadable = -1,   // nothing changed: explain, or convert the metric to a float
};

/// The one element of `metric`, as Python's float() reads it. False if that takes Python.
bool read_one(py::handle metric, double& out) noexcept {
  if (PyFloat_CheckExact(metric.ptr())) {
    out = PyFloat_AS_DOUBLE(metric.ptr());
    return true;
  }
  DLTensor tensor;
  if (!borrow_scalar(metric, tensor) || !on_cpu(tensor)) return false;
  for (int d = 0; d < tensor.ndim; ++d) {
    if (tensor.shape[d] != 1) return false;
  }
  const void* data = data_of(tensor);
  const auto dtype = dtype_of(tensor.dtype);
  if (!data || !dtype) return false;
  out = read(data, *dtype);
  return true;
}

struct Lane {
  double best = 0;
  std::int32_t num_bad_epochs = 0;
  std::int32_t cooldown_counter = 0;
  std::int64_t last_epoch = 0;
  Gate gate{1, 0, false};
  std::int32_t patience = 0;
  std::int32_t cooldown = 0;

  int step(py::handle metric, py::handle groups, py::handle rates) noexcept {
    double x;
    if (!read_one(metric, x)) return kUnreadable;
    const bool improved = improves(x, best, gate);
    if (improved) best = x;
    const std::int32_t clock =
        tick(cooldown_counter > 0 ? -cooldown_counter : num_bad_epochs, improved);
    num_bad_epochs = clock > 0 ? clock : 0;
    cooldown_counter = clock < 0 ? -clock : 0;
    ++last_epoch;
    return (fires(clock, patience) ? kLower : 0) | (same_rates(groups, rates) ? 0 : kRatesChanged);
  }

  void cool() noexcept {
    num_bad_epochs = 0;
    cooldown_counter = -after_fire(0, cooldown, true, kTorch);
  }
};

PyObject* step_fast(Lane& lane, PyObject* const* args) noexcept {
  return PyLong_FromLong(lane.step(args[0], args[1], args[2]));
}

}  // namespace

void register_lane(py::module_& m) {
  py::class_<Lane> lane(m, "Lane", "One lane in plain numbers.");
  lane.def(py::init<>())
      .def_readwrite("best", &Lane::best)
      .def_readwrite("num_bad_epochs", &Lane::num_bad_epochs)
      .def_readwrite("cooldown_counter", &Lane::cooldown_counter)
      .def_readwrite("last_epoch", &Lane::last_epoch)
      .def_readwrite("patience", &Lane::patience)
      .def_readwrite("cooldown", &Lane::cooldown)
      .def(
          "set_gate",
          [](Lane& self, std::uint8_t mode, double threshold, std::uint8_t threshold_mode) {
            self.gate = gate_of(mode, threshold, threshold_mode, 0.0);
          },
          py::arg("mode"), py::arg("threshold"), py::arg("threshold_mode"), "Words as codes.")
      .def("cool", &Lane::cool, "Start the cooldown: the end of a step that fired.");
  def_fast<Lane, 3, step_fast>(
      lane, "step",
      "step(self: torch_plateau._core.Lane, metric: object, groups: object, rates: object) -> "
      "int\n\n"
      "Take one metric. Returns FIRED and RATES_CHANGED bits, or -1, and nothing changed, if the "
      "metric cannot be read in place.");
  m.attr("FIRED") = static_cast<int>(kLower);
  m.attr("RATES_CHANGED") = static_cast<int>(kRatesChanged);
  m.def("cut", &cut, py::arg("rate"), py::arg("factor"), py::arg("min_lr"), py::arg("eps"),
        "The rate after a cut, by the rule.");
}

}  // namespace plateau
