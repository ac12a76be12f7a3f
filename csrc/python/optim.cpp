// SPDX-License-Identifier: BSD-3-Clause
// _core.AdamStep and _core.SgdStep: one step of an optimizer over stacked parameters. To build one
// is all checks, to run it all writes, so that several groups can be checked before any is written.
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "optim/adam.hpp"
#include "optim/sgd.hpp"
#include "optim/update.hpp"
#include "python/borrow.hpp"
#include "python/described.hpp"
#include "python/register.hpp"
#include "python/turn.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

using Tuple = py::typing::Tuple<py::object, py::ellipsis>;
using Tensors = py::typing::List<Tuple>;

[[noreturn]] void refuse(std::size_t index, const char* what, const std::string& expected) {
  throw std::invalid_argument("tensors[" + std::to_string(index) + "], " + what + ": expected " +
                              expected);
}

bool contiguous(const DLTensor& tensor) {
  std::int64_t stride = 1;
  for (int d = tensor.ndim - 1; d >= 0; --d) {
    if (tensor.shape[d] != 1 && tensor.strides[d] != stride) return false;
    stride *= tensor.shape[d];
  }
  return true;
}

std::int64_t elements_of(const DLTensor& tensor) {
  std::int64_t count = 1;
  for (int d = 0; d < tensor.ndim; ++d) count *= tensor.shape[d];
  return count;
}

/// Tensors on one device with a row for each of `n` lanes.
struct Rows {
  std::int64_t n;
  DLDevice device;

  DLTensor read(py::handle array, std::size_t index, const char* what) const {
    DLTensor tensor;
    const bool fits = borrow(array, tensor) && tensor.ndim > 0 && tensor.shape[0] == n &&
                      contiguous(tensor) && same(tensor.device, device) && data_of(tensor);
    if (!fits) {
      refuse(
          index, what,
          "a contiguous tensor in memory of the lanes' device, [" + std::to_string(n) + ", ...]");
    }
    return tensor;
  }

  void* pointer(py::handle array, std::size_t index, const char* what, Dtype dtype,
                std::int64_t width) const {
    const DLTensor tensor = read(array, index, what);
    if (dtype_of(tensor.dtype) != dtype || elements_of(tensor) != n * width) {
      refuse(index, what, "the size of the parameter, and its dtype or that of its state");
    }
    return const_cast<void*>(data_of(tensor));
  }
};

bool is_computed_with(Dtype dtype) {
  return dtype == Dtype::kFloat16 || dtype == Dtype::kBFloat16 || dtype == Dtype::kFloat32 ||
         dtype == Dtype::kFloat64;
}

/// A tuple of parameter, gradient, steps (None where nothing depends on them) and states.
Stacked stacked(const Tuple& given, std::size_t index, const Rows& rows, int states, bool counted,
                Dtype& dtype) {
  if (given.size() != static_cast<std::size_t>(3 + states)) {
    refuse(index, "states", std::to_string(states) + " of them");
  }
  const DLTensor param = rows.read(given[0], index, "param");
  dtype = dtype_of(param.dtype).value_or(Dtype::kBool);
  if (!is_computed_with(dtype)) refuse(index, "param", "float16, bfloat16, float32 or float64");
  Stacked tensor;
  tensor.width = elements_of(param) / rows.n;
  tensor.param = const_cast<void*>(data_of(param));
  tensor.grad = rows.pointer(given[1], index, "grad", dtype, tensor.width);
  if (counted) {
    void* step = rows.pointer(given[2], index, "step", Dtype::kFloat32, 1);
    tensor.step = static_cast<float*>(step);
  }
  const Dtype wide = dtype == Dtype::kFloat64 ? dtype : Dtype::kFloat32;
  for (int i = 0; i < states; ++i) {
    tensor.state[i] =
        rows.pointer(given[static_cast<std::size_t>(3 + i)], index, "state", wide, tensor.width);
  }
  return tensor;
}

DLTensor rate_of(const Named& lanes) {
  DLTensor rate;
  if (!borrow(lanes["rate"], rate) || rate.ndim != 1) {
    throw std::invalid_argument("rate: expected a vector");
  }
  return rate;
}

/// A step that is checked, of parameters of any types.
template <class Kind>
class Step {
 public:
  /// `lanes` holds their rate, published and flags, and `amp` what GradScaler tells, if they have
  /// any. The tensors are kept alive.
  Step(const Kind& kind, const Named& lanes, const Named& amp, const Tensors& tensors,
       const py::object& keep)
      : owners_(py::make_tuple(lanes, amp, tensors, keep)) {
    const DLTensor rate = rate_of(lanes);
    const Described given(lanes, rate.device), told(amp, rate.device);
    device_ = rate.device;
    update_.kind = kind;
    update_.n = rate.shape[0];
    update_.rate = given.pointer<double>("rate", update_.n);
    update_.published = given.pointer<float>("published", update_.n);
    update_.flags = given.pointer<std::uint8_t>("flags", update_.n);
    update_.grad_scale = told.pointer<float>("grad_scale", 1);
    update_.found_inf = told.pointer<float>("found_inf", 1);
    const Rows rows{update_.n, device_};
    const int states = Kind::kStates + kind.has_more();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const Tuple tensor = tensors[i];
      Dtype dtype{};
      const Stacked one = stacked(tensor, i, rows, states, states > 0, dtype);
      tensors_[dtype].push_back(one);
    }
    if (device_.device_type == kDLCUDA) current_stream_ = current_stream_of(lanes["rate"]);
  }

  /// Writes.
  void run(int threads) {
    void* stream = nullptr;
    const bool on_gpu = device_.device_type == kDLCUDA;
    if (on_gpu && current_stream_(kDLCUDA, device_.device_id, &stream) != 0) {
      throw py::error_already_set();
    }
    if (on_gpu) {
      const py::gil_scoped_release unlocked;
      for (const auto& [dtype, each] : tensors_) {
        update_cuda(update_, each, dtype, device_.device_id, stream);
      }
    } else {
      without_lock([&] {
        for (const auto& [dtype, each] : tensors_) update_cpu(update_, each, dtype, threads);
      });
    }
  }

 private:
  py::object owners_;
  DLDevice device_{};
  CurrentStream current_stream_ = nullptr;
  Update<Kind> update_;
  std::map<Dtype, std::vector<Stacked>> tensors_;
};

Step<Adam> adam_step(const Named& lanes, const Named& amp, const Named& settings,
                     const Tensors& tensors, bool amsgrad, bool maximize, bool decoupled) {
  const DLTensor rate = rate_of(lanes);
  const Described chosen(settings, rate.device);
  Adam kind;
  const auto setting = [&](const char* name) {
    return chosen.setting<double>(name, rate.shape[0]);
  };
  kind.lr = setting("lr");
  kind.beta1 = setting("beta1");
  kind.beta2 = setting("beta2");
  kind.eps = setting("eps");
  kind.weight_decay = setting("weight_decay");
  kind.amsgrad = amsgrad;
  kind.maximize = maximize;
  kind.decoupled = decoupled;
  return {kind, lanes, amp, tensors, settings};
}

Step<Sgd> sgd_step(const Named& lanes, const Named& amp, const Named& settings,
                   const Tensors& tensors, bool has_momentum, bool maximize, bool nesterov) {
  const DLTensor rate = rate_of(lanes);
  const Described chosen(settings, rate.device);
  Sgd kind;
  const auto setting = [&](const char* name) {
    return chosen.setting<double>(name, rate.shape[0]);
  };
  kind.lr = setting("lr");
  kind.momentum = setting("momentum");
  kind.dampening = setting("dampening");
  kind.weight_decay = setting("weight_decay");
  kind.has_momentum = has_momentum;
  kind.maximize = maximize;
  kind.nesterov = nesterov;
  return {kind, lanes, amp, tensors, settings};
}

template <class Kind, class Make>
void register_step(py::module_& m, const char* name, Make make, const char* more,
                   const char* other) {
  py::class_<Step<Kind>>(m, name, "A step of stacked parameters, checked: csrc/optim/update.hpp.")
      .def(py::init(make), py::arg("lanes"), py::arg("amp"), py::arg("settings"),
           py::arg("tensors"), py::arg(more), py::arg("maximize"), py::arg(other))
      .def("run", &Step<Kind>::run, py::arg("threads"), "Take it; once.");
}

}  // namespace

void register_optimizers(py::module_& m) {
  register_step<Adam>(m, "AdamStep", &adam_step, "amsgrad", "decoupled");
  register_step<Sgd>(m, "SgdStep", &sgd_step, "has_momentum", "nesterov");
}

}  // namespace plateau
