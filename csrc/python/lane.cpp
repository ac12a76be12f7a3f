// SPDX-License-Identifier: BSD-3-Clause
// _core.Lane: the state of the drop-in scheduler, one lane in plain numbers. It decides, and
// cuts rates that are floats in plain param groups; whatever else there is, is left to Python.
#include <cstdint>
#include <utility>

#include "plateau/rule.hpp"
#include "plateau/step.hpp"
#include "python/borrow.hpp"
#include "python/fast.hpp"
#include "python/rates.hpp"
#include "python/register.hpp"
#include "python/turn.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

/// What a step leaves to do; it waits, until swap(), where there is any.
enum Left : int {
  kLower = 1,         // lower the rates, swap() and cool()
  kRatesChanged = 2,  // take a new snapshot of the rates, and swap()
  kFailed = -1,       // nothing: there is a Python error
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

PyObject* const kFinishStep = PyUnicode_InternFromString("_finish_step");
PyObject* const kReduceLr = PyUnicode_InternFromString("_reduce_lr");
PyObject* const kLastLr = PyUnicode_InternFromString("_last_lr");
PyObject* const kMinLrs = PyUnicode_InternFromString("min_lrs");
PyObject* const kFactor = PyUnicode_InternFromString("factor");
PyObject* const kEps = PyUnicode_InternFromString("eps");

/// Whether `function` is what `plateau._reduce_lr` calls: neither a subclass nor anybody else has
/// put another in its place.
bool reduces_by(PyObject* plateau, PyObject* function) noexcept {
  PyObject* method = PyObject_GetAttr(plateau, kReduceLr);
  const bool same = method && PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function;
  Py_XDECREF(method);
  PyErr_Clear();
  return same;
}

/// cut_floats by the attributes of `plateau`; null too where one is not where it usually is.
PyObject* cut_by_attributes(PyObject* plateau, PyObject* groups) noexcept {
  PyObject* own = PyObject_GenericGetDict(plateau, nullptr);
  if (!own) return nullptr;
  PyObject* floors = PyDict_GetItemWithError(own, kMinLrs);
  PyObject* factor = PyDict_GetItemWithError(own, kFactor);
  PyObject* eps = PyDict_GetItemWithError(own, kEps);
  PyObject* rates = nullptr;
  if (floors && factor && eps && is_number(factor) && is_number(eps)) {
    rates = cut_floats(groups, floors, PyFloat_AsDouble(factor), PyFloat_AsDouble(eps));
  }
  Py_DECREF(own);
  return rates;
}

/// What a step changes.
struct Moved {
  double best = 0;
  std::int32_t num_bad_epochs = 0;
  std::int32_t cooldown_counter = 0;
  std::int64_t last_epoch = 0;
};

struct Lane : Moved {
  explicit Lane(py::object reduce_lr) : reduce_lr(std::move(reduce_lr)) {}

  py::object reduce_lr;  // what a plateau has as _reduce_lr where cutting is left to this class
  Gate gate{1, 0, false};
  std::int32_t patience = 0;
  std::int32_t cooldown = 0;
  Moved other;  // what a step that waits will bring; once that is taken, what was before it

  Turn& turn() noexcept { return turn_; }

  /// Becomes another, but for `reduce_lr`.
  void take(const Lane& from) noexcept {
    static_cast<Moved&>(*this) = from;
    gate = from.gate;
    patience = from.patience;
    cooldown = from.cooldown;
  }

  /// Nothing, or some of Left: then the step waits.
  int step(double x, py::handle groups, py::handle rates) noexcept {
    const bool improved = improves(x, best, gate);
    const std::int32_t clock =
        tick(cooldown_counter > 0 ? -cooldown_counter : num_bad_epochs, improved);
    const Moved next{improved ? x : best, clock > 0 ? clock : 0, clock < 0 ? -clock : 0,
                     last_epoch + 1};
    const int left =
        (fires(clock, patience) ? kLower : 0) | (same_rates(groups, rates) ? 0 : kRatesChanged);
    (left ? other : static_cast<Moved&>(*this)) = next;
    return left;
  }

  /// Takes the step that waits; or, after that, takes it back.
  void swap() noexcept { std::swap(other, static_cast<Moved&>(*this)); }

  /// Does what kLower asks for, and takes the snapshot, where all is plain. Returns what is left to
  /// Python: nothing or `left`.
  int lower(PyObject* plateau, PyObject* groups, int left) noexcept {
    PyObject* rates =
        reduces_by(plateau, reduce_lr.ptr()) ? cut_by_attributes(plateau, groups) : nullptr;
    if (!rates) return PyErr_Occurred() ? kFailed : left;
    swap();
    cool();
    const bool set = PyObject_SetAttr(plateau, kLastLr, rates) == 0;
    Py_DECREF(rates);
    return set ? 0 : kFailed;
  }

  void cool() noexcept {
    num_bad_epochs = 0;
    cooldown_counter = -after_fire(0, cooldown, true, kTorch);
  }

 private:
  Turn turn_;
};

/// Does what is left of a step, before another thread may begin one. False with a Python error.
bool finish(Lane& lane, PyObject* const* args, int left) {
  const InTurn mine(lane.turn(), true);
  PyObject* const plateau = args[3];
  PyObject* const epoch = args[4];
  if (left & kLower) left = lane.lower(plateau, args[1], left);
  if (left == kFailed) return false;
  if (left == 0 && epoch == Py_None) return true;
  const py::object bits = py::int_(left);
  PyObject* done = PyObject_CallMethodObjArgs(plateau, kFinishStep, bits.ptr(), epoch, nullptr);
  Py_XDECREF(done);
  return done != nullptr;
}

PyObject* step_fast(Lane& lane, PyObject* const* args) noexcept {
  return answer([&]() -> PyObject* {
    double x;
    if (!read_one(args[0], x)) Py_RETURN_FALSE;
    if (lane.turn().taken()) const InTurn waited(lane.turn());
    const int left = lane.step(x, args[1], args[2]);
    if ((left || args[4] != Py_None) && !finish(lane, args, left)) return nullptr;
    Py_RETURN_TRUE;
  });
}

}  // namespace

void register_lane(py::module_& m) {
  py::class_<Lane> lane(m, "Lane", "One lane in plain numbers.");
  lane.def(py::init<py::object>(), py::arg("reduce_lr"))
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
      .def("take", &Lane::take, py::arg("other"), "Become another, but for `reduce_lr`.")
      .def("swap", &Lane::swap, "Take the step that waits, or take that back.")
      .def("cool", &Lane::cool, "Start the cooldown: the end of a step that fired.");
  def_turn(lane, "Lane");
  def_fast<Lane, 5, step_fast>(
      lane, "step",
      "step(self: torch_plateau._core.Lane, metric: object, groups: object, rates: object, "
      "plateau: object, epoch: object) -> bool\n\n"
      "Take one metric. Where a cut is due, the groups of `plateau` are plain dicts with float "
      "rates and its `_reduce_lr` is that of this lane, cut them and set its `_last_lr`. What is "
      "left then, FIRED and RATES_CHANGED bits, and an `epoch`, if any, are for "
      "`plateau._finish_step`, during which no other thread steps; the step waits until swap() "
      "where there are such bits. False, and nothing changed, if "
      "the metric cannot be read in place.");
  m.attr("FIRED") = static_cast<int>(kLower);
  m.attr("RATES_CHANGED") = static_cast<int>(kRatesChanged);
  m.def("cut", &cut, py::arg("rate"), py::arg("factor"), py::arg("min_lr"), py::arg("eps"),
        "The rate after a cut, by the rule.");
}

}  // namespace plateau
