// SPDX-License-Identifier: BSD-3-Clause
// _core.Lanes: a batch of lanes over tensors that Python allocated. Pointers are taken once, when
// it is built; a step then reads its metrics in place.
#include <pybind11/typing.h>

#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "plateau/step.hpp"
#include "python/borrow.hpp"
#include "python/fast.hpp"
#include "python/register.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

// Below this many lanes a step is shorter than handing the GIL over and taking it back.
constexpr std::int64_t kReleaseGil = 16384;

using Named = py::typing::Dict<py::str, py::object>;

constexpr std::int64_t kUnreadable = -1;

template <class T>
constexpr Dtype dtype_for() {
  if constexpr (std::is_same_v<T, double>) return Dtype::kFloat64;
  if constexpr (std::is_same_v<T, float>) return Dtype::kFloat32;
  if constexpr (std::is_same_v<T, std::int32_t>) return Dtype::kInt32;
  if constexpr (std::is_same_v<T, std::int64_t>) return Dtype::kInt64;
  return Dtype::kUInt8;
}

/// The tensor named `name`, which must be contiguous, on the CPU and of rank 1 (or 0, if allowed).
DLTensor described(const char* name, py::handle array, bool scalar_allowed = false) {
  DLTensor tensor;
  const bool fits = borrow(array, tensor) && on_cpu(tensor) &&
                    (tensor.ndim == 1 || (scalar_allowed && tensor.ndim == 0)) &&
                    (tensor.ndim == 0 || tensor.shape[0] < 2 || tensor.strides[0] == 1);
  if (!fits) throw std::invalid_argument(std::string(name) + ": expected a contiguous CPU tensor");
  return tensor;
}

template <class T>
T* pointer(const char* name, const DLTensor& tensor, std::int64_t size) {
  if (dtype_of(tensor.dtype) != dtype_for<T>()) {
    throw std::invalid_argument(std::string(name) + ": wrong dtype");
  }
  if (tensor.ndim == 1 && tensor.shape[0] != size) {
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(size) +
                                " values, got " + std::to_string(tensor.shape[0]));
  }
  return static_cast<T*>(const_cast<void*>(data_of(tensor)));
}

template <class T>
T* pointer(const char* name, py::handle array, std::int64_t size) {
  return pointer<T>(name, described(name, array), size);
}

/// A 0-d tensor is one value for all lanes; a 1-d tensor holds one per lane (or per group).
template <class T>
Setting<T> setting(const Named& settings, const char* name, std::int64_t size) {
  const DLTensor tensor = described(name, settings[name], true);
  T* data = pointer<T>(name, tensor, size);
  return tensor.ndim == 0 ? Setting<T>{nullptr, *data} : Setting<T>{data, T{}};
}

class Batch {
 public:
  Batch(const Named& state, const Named& settings) : owners_(py::make_tuple(state, settings)) {
    const DLTensor best = described("best", state["best"]);
    const DLTensor rate = described("rate", state["rate"]);
    const std::int64_t n = best.shape[0];
    const std::int64_t groups = rate.shape[0];
    lanes_.n = n;
    lanes_.best_dtype = dtype_of(best.dtype).value_or(Dtype::kBool);
    if (lanes_.best_dtype == Dtype::kFloat32) {
      lanes_.best = pointer<float>("best", best, n);
    } else {
      lanes_.best = pointer<double>("best", best, n);
    }
    lanes_.clock = pointer<std::int32_t>("clock", state["clock"], n);
    lanes_.outcome = pointer<std::uint8_t>("outcome", state["outcome"], n);
    lanes_.num_reductions = pointer<std::int32_t>("num_reductions", state["num_reductions"], n);
    lanes_.num_steps = pointer<std::int64_t>("num_steps", state["num_steps"], 1);
    lanes_.rate = pointer<double>("rate", rate, groups);
    lanes_.published = pointer<float>("published", state["published"], groups);
    lanes_.offsets = state["offsets"].is_none()
                         ? nullptr
                         : pointer<std::int64_t>("offsets", state["offsets"], n + 1);
    if (!lanes_.offsets && groups != n) throw std::invalid_argument("rate: one per lane");
    lanes_.settings.gate_scale = setting<double>(settings, "gate_scale", n);
    lanes_.settings.gate_shift = setting<double>(settings, "gate_shift", n);
    lanes_.settings.maximize = setting<std::uint8_t>(settings, "maximize", n);
    lanes_.settings.patience = setting<std::int32_t>(settings, "patience", n);
    lanes_.settings.cooldown = setting<std::int32_t>(settings, "cooldown", n);
    lanes_.settings.factor = setting<double>(settings, "factor", n);
    lanes_.settings.eps = setting<double>(settings, "eps", n);
    lanes_.settings.min_lr = setting<double>(settings, "min_lr", groups);
  }

  std::int64_t step(py::handle array) noexcept {
    DLTensor tensor;
    if (!borrow(array, tensor) || !on_cpu(tensor)) return kUnreadable;
    const bool shaped =
        tensor.ndim == 1 ? tensor.shape[0] == lanes_.n : tensor.ndim == 0 && lanes_.n == 1;
    const void* data = data_of(tensor);
    const auto dtype = dtype_of(tensor.dtype);
    if (!shaped || (!data && lanes_.n > 0) || !dtype || !holds(lanes_.best_dtype, *dtype)) {
      return kUnreadable;
    }
    const Metrics metrics{data, tensor.ndim == 0 ? 1 : tensor.strides[0], *dtype};
    if (lanes_.n < kReleaseGil) return step_cpu(lanes_, metrics);
    py::gil_scoped_release unlocked;
    const std::lock_guard<std::mutex> alone(stepping_);
    return step_cpu(lanes_, metrics);
  }

 private:
  py::tuple owners_;  // keeps the tensors behind the pointers alive
  std::mutex stepping_;
  Lanes lanes_{};
};

PyObject* step_fast(Batch& batch, PyObject* const* args) noexcept {
  return PyLong_FromLongLong(batch.step(args[0]));
}

}  // namespace

void register_lanes(py::module_& m) {
  py::class_<Batch> lanes(m, "Lanes", "N lanes over tensors that the caller allocated.");
  lanes.def(py::init<const Named&, const Named&>(), py::arg("state"), py::arg("settings"));
  def_fast<Batch, 1, step_fast>(
      lanes, "step",
      "step(self: torch_plateau._core.Lanes, metrics: object) -> int\n\n"
      "Advance every lane. Returns how many had a rate lowered, or -1, and nothing changed, if "
      "`metrics` cannot be read in place.");
}

}  // namespace plateau
