// SPDX-License-Identifier: BSD-3-Clause
// _core.Lanes: a batch of lanes over tensors that Python allocated. Pointers are taken once, when
// it is built; a step then reads its metrics in place.
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "plateau/replay.hpp"
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

bool same(DLDevice one, DLDevice other) {
  return one.device_type == other.device_type && one.device_id == other.device_id;
}

/// Tensors that must be contiguous, of rank 1 and on one device, the first one's.
class Described {
 public:
  explicit Described(const Named& tensors) : tensors_(tensors) {}

  DLTensor operator()(const char* name) {
    DLTensor tensor;
    const bool fits = borrow(tensors_[name], tensor) && tensor.ndim == 1 &&
                      (tensor.shape[0] < 2 || tensor.strides[0] == 1);
    if (!fits) throw std::invalid_argument(std::string(name) + ": expected a contiguous vector");
    if (!known_) device = tensor.device;
    known_ = true;
    if (!same(device, tensor.device)) {
      throw std::invalid_argument(std::string(name) + ": on another device");
    }
    return tensor;
  }

  std::int64_t size(const char* name) { return (*this)(name).shape[0]; }

  template <class T>
  T* pointer(const char* name, std::int64_t size) {
    const DLTensor tensor = (*this)(name);
    if (dtype_of(tensor.dtype) != dtype_for<T>()) {
      throw std::invalid_argument(std::string(name) + ": wrong dtype");
    }
    if (tensor.shape[0] != size) {
      throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(size) +
                                  " values, got " + std::to_string(tensor.shape[0]));
    }
    return static_cast<T*>(const_cast<void*>(data_of(tensor)));
  }

  /// Null where there is no such tensor.
  template <class T>
  T* maybe(const char* name, std::int64_t size) {
    return tensors_.contains(name) ? pointer<T>(name, size) : nullptr;
  }

  /// A number is one value for all lanes; a tensor holds one per lane (or per group).
  template <class T>
  Setting<T> setting(const char* name, std::int64_t size) {
    const py::object value = tensors_[name];
    if (!py::isinstance<py::float_>(value)) return Setting<T>{pointer<T>(name, size), T{}};
    return Setting<T>{nullptr, static_cast<T>(value.cast<double>())};
  }

  bool known() const { return known_; }

  DLDevice device{};

 private:
  const Named& tensors_;
  bool known_ = false;
};

Options options_of(Described& given, std::int64_t n) {
  Options options;
  options.on_nan = given.setting<std::uint8_t>("on_nan", n);
  options.safe_gate = given.setting<std::uint8_t>("safe_gate", n);
  options.keras = given.setting<std::uint8_t>("keras", n);
  options.initial_patience = given.setting<std::int32_t>("initial_patience", n);
  options.accumulate = given.setting<std::int32_t>("accumulate", n);
  options.window = given.setting<std::int32_t>("window", n);
  options.smoothing = given.setting<double>("smoothing", n);
  options.max_reductions = given.setting<std::int32_t>("max_reductions", n);
  options.patience_at_min = given.setting<std::int32_t>("patience_at_min", n);
  options.warmup_steps = given.setting<std::int32_t>("warmup_steps", n);
  options.warmup_start_factor = given.setting<double>("warmup_start_factor", n);
  options.flags = given.pointer<std::uint8_t>("flags", n);
  options.age = given.pointer<std::int64_t>("age", n);
  options.last_reduction = given.maybe<std::int64_t>("last_reduction", n);
  options.at_min_steps = given.maybe<std::int32_t>("at_min_steps", n);
  options.total = given.maybe<double>("total", n);
  options.taken = given.maybe<std::int32_t>("taken", n);
  options.smooth = given.maybe<double>("smooth", n);
  options.smooth_rest = given.maybe<double>("smooth_rest", n);
  options.pushed = given.maybe<std::int64_t>("pushed", n);
  if (options.pushed) {
    options.recent_size =
        static_cast<std::int32_t>(given.size("recent") / std::max<std::int64_t>(n, 1));
    options.recent = given.pointer<double>("recent", options.recent_size * n);
  }
  Events& events = options.events;
  events.written = given.maybe<std::int64_t>("events_written", 1);
  if (events.written) {
    const std::int64_t capacity = events.capacity = given.size("events_lane");
    events.lane = given.pointer<std::int64_t>("events_lane", capacity);
    events.group = given.pointer<std::int64_t>("events_group", capacity);
    events.step = given.pointer<std::int64_t>("events_step", capacity);
    events.old_rate = given.pointer<double>("events_old_rate", capacity);
    events.new_rate = given.pointer<double>("events_new_rate", capacity);
    events.metric = given.pointer<double>("events_metric", capacity);
    events.best = given.pointer<double>("events_best", capacity);
  }
  return options;
}

class Batch {
 public:
  /// With `options`, optional parts; they are used in steps with a mask, and, if `always`, in all.
  Batch(const Named& state, const Named& settings, const std::optional<Named>& options, bool always)
      : owners_(py::make_tuple(state, settings, options)), always_(always) {
    Described given(state);
    const DLTensor best = given("best");
    const std::int64_t n = best.shape[0];
    const std::int64_t groups = given("rate").shape[0];
    device_ = given.device;
    lanes_.n = n;
    lanes_.best_dtype = dtype_of(best.dtype).value_or(Dtype::kBool);
    if (lanes_.best_dtype == Dtype::kFloat32) {
      lanes_.best = given.pointer<float>("best", n);
    } else {
      lanes_.best = given.pointer<double>("best", n);
    }
    lanes_.clock = given.pointer<std::int32_t>("clock", n);
    lanes_.outcome = given.pointer<std::uint8_t>("outcome", n);
    lanes_.num_reductions = given.pointer<std::int32_t>("num_reductions", n);
    lanes_.num_steps = given.pointer<std::int64_t>("num_steps", 1);
    lanes_.rate = given.pointer<double>("rate", groups);
    lanes_.published = given.pointer<float>("published", groups);
    lanes_.num_groups = groups;
    lanes_.offsets =
        state["offsets"].is_none() ? nullptr : given.pointer<std::int64_t>("offsets", n + 1);
    if (!lanes_.offsets && groups != n) throw std::invalid_argument("rate: one per lane");
    Described chosen(settings);
    lanes_.settings.gate_scale = chosen.setting<double>("gate_scale", n);
    lanes_.settings.gate_shift = chosen.setting<double>("gate_shift", n);
    lanes_.settings.maximize = chosen.setting<std::uint8_t>("maximize", n);
    lanes_.settings.patience = chosen.setting<std::int32_t>("patience", n);
    lanes_.settings.cooldown = chosen.setting<std::int32_t>("cooldown", n);
    lanes_.settings.factor = chosen.setting<double>("factor", n);
    lanes_.settings.eps = chosen.setting<double>("eps", n);
    lanes_.settings.min_lr = chosen.setting<double>("min_lr", groups);
    if (chosen.known() && !same(chosen.device, device_)) {
      throw std::invalid_argument("settings: on another device");
    }
    if (options) {
      Described parts(*options);
      options_ = options_of(parts, n);
      if (!same(parts.device, device_)) throw std::invalid_argument("options: on another device");
    }
    if (device_.device_type == kDLCUDA) {
      current_stream_ = current_stream_of(state["best"]);
      prepare_cuda(device_.device_id);
    } else if (!on_cpu(best)) {
      throw std::invalid_argument("best: expected a CPU or CUDA tensor");
    }
  }

  /// Many steps: one history for all lanes, `[epochs]`, or one for each, `[epochs, n]`. `rows` are
  /// flat tensors by the names of Record's fields.
  void replay(py::handle array, const Named& rows, int threads) {
    const History history = history_of(array);
    Described given(rows);
    Record record;
    record.first_cut = given.pointer<std::int32_t>("first_cut", lanes_.n);
    record.wasted = given.pointer<std::int32_t>("wasted", lanes_.n);
    const std::int64_t entries = history.epochs * lanes_.n;
    record.published = given.maybe<float>("published", history.epochs * lanes_.num_groups);
    record.outcome = given.maybe<std::uint8_t>("outcome", entries);
    if (lanes_.best_dtype == Dtype::kFloat32) {
      record.best = given.maybe<float>("best", entries);
    } else {
      record.best = given.maybe<double>("best", entries);
    }
    record.clock = given.maybe<std::int32_t>("clock", entries);
    record.value = given.maybe<double>("value", entries);
    if (!same(given.device, device_)) throw std::invalid_argument("rows: on another device");
    if (device_.device_type == kDLCUDA) {
      void* stream = stream_for(array);
      py::gil_scoped_release unlocked;
      if (always_) {
        replay_cuda(lanes_, *options_, history, record, device_.device_id, stream);
      } else {
        replay_cuda(lanes_, history, record, device_.device_id, stream);
      }
      return;
    }
    py::gil_scoped_release unlocked;
    const std::lock_guard<std::mutex> alone(stepping_);
    if (always_) {
      replay_cpu(lanes_, *options_, history, record, threads);
    } else {
      replay_cpu(lanes_, history, record, threads);
    }
  }

  /// Throws only what CUDA calls throw.
  std::int64_t step(py::handle array) {
    Metrics metrics;
    return reads(array, metrics) ? advance(array, metrics, nullptr) : kUnreadable;
  }

  /// The same for lanes of which `mask`, a contiguous bool or uint8 vector, holds no 0.
  std::int64_t step_masked(py::handle array, py::handle mask) {
    Metrics metrics;
    DLTensor flags;
    if (!options_ || !reads(array, metrics) || !borrow(mask, flags) || !is_here(flags)) {
      return kUnreadable;
    }
    const auto dtype = dtype_of(flags.dtype);
    const bool fits = flags.ndim == 1 && flags.shape[0] == lanes_.n &&
                      (flags.shape[0] < 2 || flags.strides[0] == 1) &&
                      (dtype == Dtype::kBool || dtype == Dtype::kUInt8) &&
                      (data_of(flags) || lanes_.n == 0);
    if (!fits) return kUnreadable;
    return advance(array, metrics, static_cast<const std::uint8_t*>(data_of(flags)));
  }

 private:
  bool is_here(const DLTensor& tensor) const {
    return device_.device_type == kDLCUDA ? same(tensor.device, device_) : on_cpu(tensor);
  }

  /// Whether `array` holds a metric for each lane, where it can be read in place.
  bool reads(py::handle array, Metrics& out) const {
    DLTensor tensor;
    if (!borrow(array, tensor) || !is_here(tensor)) return false;
    const bool shaped =
        tensor.ndim == 1 ? tensor.shape[0] == lanes_.n : tensor.ndim == 0 && lanes_.n == 1;
    const void* data = data_of(tensor);
    const auto dtype = dtype_of(tensor.dtype);
    if (!shaped || (!data && lanes_.n > 0) || !dtype || !holds(lanes_.best_dtype, *dtype)) {
      return false;
    }
    out = Metrics{data, tensor.ndim == 0 ? 1 : tensor.strides[0], *dtype};
    return true;
  }

  History history_of(py::handle array) const {
    DLTensor tensor;
    if (!borrow(array, tensor) || !is_here(tensor)) {
      throw std::invalid_argument("history: expected a tensor where the lanes are");
    }
    const auto dtype = dtype_of(tensor.dtype);
    const bool shaped = tensor.ndim == 1 || (tensor.ndim == 2 && tensor.shape[1] == lanes_.n);
    if (!shaped || !dtype || !holds(lanes_.best_dtype, *dtype)) {
      throw std::invalid_argument("history: expected [epochs] or [epochs, lanes] metrics");
    }
    if (tensor.shape[0] > std::numeric_limits<std::int32_t>::max()) {
      throw std::invalid_argument("history: expected fewer than 2**31 epochs");
    }
    const std::int64_t stride = tensor.ndim == 2 ? tensor.strides[1] : 0;
    return {{data_of(tensor), stride, *dtype}, tensor.strides[0], tensor.shape[0]};
  }

  void* stream_for(py::handle array) const {
    if (current_stream_of(array) != current_stream_) {
      throw std::invalid_argument("expected a tensor of the library that made the lanes");
    }
    void* stream = nullptr;
    if (current_stream_(kDLCUDA, device_.device_id, &stream) != 0) throw py::error_already_set();
    return stream;
  }

  std::int64_t advance(py::handle array, const Metrics& metrics, const std::uint8_t* active) {
    if (device_.device_type == kDLCUDA) return launch(array, metrics, active);
    if (lanes_.n < kReleaseGil) return run(metrics, active);
    py::gil_scoped_release unlocked;
    const std::lock_guard<std::mutex> alone(stepping_);
    return run(metrics, active);
  }

  std::int64_t run(const Metrics& metrics, const std::uint8_t* active) {
    if (active || always_) return step_cpu(lanes_, *options_, metrics, active);
    return step_cpu(lanes_, metrics);
  }

  /// The state is ordered by the stream of the library that made it. Metrics of another library are
  /// on a stream of that one's: it is asked to make them safe on ours, which takes Python.
  std::int64_t launch(py::handle array, const Metrics& metrics, const std::uint8_t* active) {
    if (current_stream_of(array) != current_stream_) return kUnreadable;
    void* stream = nullptr;
    if (current_stream_(kDLCUDA, device_.device_id, &stream) != 0) throw py::error_already_set();
    py::gil_scoped_release unlocked;  // a launch waits where thousands are in the queue
    if (active || always_) {
      step_cuda(lanes_, *options_, metrics, active, device_.device_id, stream);
    } else {
      step_cuda(lanes_, metrics, device_.device_id, stream);
    }
    return 0;
  }

  py::tuple owners_;  // keeps the tensors behind the pointers alive
  DLDevice device_{};
  CurrentStream current_stream_ = nullptr;
  std::mutex stepping_;
  Lanes lanes_{};
  std::optional<Options> options_;
  bool always_;
};

template <class Call>
PyObject* answer(Call call) noexcept {
  try {
    return PyLong_FromLongLong(call());
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyObject* step_fast(Batch& batch, PyObject* const* args) noexcept {
  return answer([&] { return batch.step(args[0]); });
}

PyObject* step_masked_fast(Batch& batch, PyObject* const* args) noexcept {
  return answer([&] { return batch.step_masked(args[0], args[1]); });
}

}  // namespace

void register_lanes(py::module_& m) {
  py::class_<Batch> lanes(m, "Lanes", "N lanes over tensors that the caller allocated.");
  lanes.def(py::init<const Named&, const Named&, const std::optional<Named>&, bool>(),
            py::arg("state"), py::arg("settings"), py::arg("options") = py::none(),
            py::arg("always") = false);
  lanes.def(
      "replay", &Batch::replay, py::arg("history"), py::arg("rows"), py::arg("threads"),
      "Step through a history, [epochs] or [epochs, n], and fill the flat tensors in `rows`.");
  def_fast<Batch, 1, step_fast>(
      lanes, "step",
      "step(self: torch_plateau._core.Lanes, metrics: object) -> int\n\n"
      "Advance every lane. Returns how many had a rate lowered (0 on a GPU, where nobody knows "
      "yet), "
      "or -1, and nothing changed, if `metrics` cannot be read in place.");
  def_fast<Batch, 2, step_masked_fast>(
      lanes, "step_masked",
      "step_masked(self: torch_plateau._core.Lanes, metrics: object, active: object) -> int\n\n"
      "The same for the lanes of which `active` holds no 0; the others keep their state.");
}

}  // namespace plateau
