// SPDX-License-Identifier: BSD-3-Clause
// _core.Lanes: a batch of lanes over tensors that Python allocated. Pointers are taken when tensors
// are connected; a step then reads its metrics in place.
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/threads.hpp"
#include "plateau/replay.hpp"
#include "plateau/step.hpp"
#include "python/borrow.hpp"
#include "python/calls.hpp"
#include "python/connect.hpp"
#include "python/fast.hpp"
#include "python/memory.hpp"
#include "python/register.hpp"
#include "python/turn.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

// With fewer lanes and rates a step is shorter than handing the interpreter lock over and back.
constexpr std::int64_t kReleaseGil = 16384;

// What a step answers where it did nothing; otherwise how many lanes had a rate lowered.
constexpr std::int64_t kUnreadable = -1, kMoved = -2;

/// A tensor that users were given, and could therefore move.
struct Handed {
  py::object tensor;
  const void* data = nullptr;
  std::int64_t size = 0;

  explicit Handed(py::object given = {}) : tensor(std::move(given)) {
    DLTensor now;
    if (!tensor || !describe(tensor, now)) return;
    data = data_of(now);
    size = now.shape[0];
  }
  bool moved() const noexcept {
    DLTensor now;
    return !describe(tensor, now) || now.ndim != 1 || now.shape[0] != size ||
           (size > 1 && now.strides[0] != 1) || (size > 0 && data_of(now) != data);
  }
};

/// Signals, of Ctrl-C above all, in what goes on without the interpreter lock.
struct Signals {
  static constexpr std::chrono::milliseconds kEvery{50};

  /// Looks now and then whether a handler raises, whose error is then Python's.
  bool none() {
    if (std::chrono::steady_clock::now() - looked < kEvery) return true;
    const py::gil_scoped_acquire locked;
    raised = PyErr_CheckSignals() != 0;
    looked = std::chrono::steady_clock::now();
    return !raised;
  }

  std::chrono::steady_clock::time_point looked = std::chrono::steady_clock::now();
  bool raised = false;
};

class Batch {
 public:
  /// Functions of torch's, or None: `increment_version` is told of writes to `published` and
  /// `best`, `get_num_threads` is asked for how many threads a step of many lanes may take.
  Batch(py::object increment_version, py::object get_num_threads)
      : increment_version_(std::move(increment_version)),
        get_num_threads_(std::move(get_num_threads)) {}

  /// Takes tensors and settings in place of those before. All is checked and built aside and then
  /// swapped in at once: `writes` are called, of functions that are not Python's, and `names`
  /// become attributes of `owner`. No Python code runs between these, so an interruption finds
  /// either all of it done or nothing. (They are set one by one, not in owner.__dict__: whoever
  /// asks for that makes attributes slower.)
  void connect(const Named& tensors, const Named& settings, bool parts, const py::object& keep,
               const std::vector<py::object>& writes, const py::object& owner, const Named& names) {
    Connected next(tensors, settings);
    Handed published(tensors["published"]), best(tensors["best"]);
    CurrentStream stream = nullptr;
    if (next.device.device_type == kDLCUDA) {
      stream = current_stream_of(best.tensor);
      prepare_cuda(next.device.device_id);
    }
    py::object owners = py::make_tuple(tensors.attr("copy")(), settings.attr("copy")(), keep);
    py::tuple both = py::make_tuple(published.tensor, best.tensor);
    py::tuple rates = py::make_tuple(published.tensor);
    call_each(writes);
    for (const auto& [name, value] : names) {
      if (PyObject_GenericSetAttr(owner.ptr(), name.ptr(), value.ptr()) != 0) {
        throw py::error_already_set();
      }
    }
    lanes_ = next.lanes;
    device_ = next.device;
    parts_ = parts;
    current_stream_ = stream;
    is_long_ = device_.device_type == kDLCUDA || lanes_.n + lanes_.num_groups >= 2 * kReleaseGil ||
               std::max(lanes_.n, lanes_.num_groups) >= kReleaseGil;
    std::swap(published_, published);
    std::swap(best_, best);
    std::swap(owners_, owners);
    std::swap(rates_, rates);
    std::swap(rates_and_best_, both);
  }

  /// From now on `best` may be moved, and torch is told of writes to it.
  void watch_best() noexcept { best_is_out_ = true; }

  /// Throws only what CUDA calls throw. `mask` may be null.
  std::int64_t step(py::handle array, py::handle mask) {
    if (is_long_ || turn_.taken()) return step_in_turn(array, mask);
    Metrics metrics;
    const std::uint8_t* active = nullptr;
    if (!reads(array, metrics) || (mask && !reads_mask(mask, active))) return kUnreadable;
    if (turn_.taken()) return step_in_turn(array, mask);  // since: reading may run Python code
    if (has_moved()) return kMoved;
    return tell(run(metrics, active));
  }

  void replay(py::handle array, const Named& rows, int threads) {
    const InTurn mine(turn_);
    if (has_moved()) throw std::runtime_error("lanes: their memory was moved");
    const History history = history_of(array);
    const Record record = record_of(rows, lanes_, history.epochs, device_);
    const bool on_gpu = device_.device_type == kDLCUDA;
    void* stream = on_gpu ? stream_for(array) : nullptr;
    Signals signals;
    {
      const py::gil_scoped_release unlocked;
      if (on_gpu) {
        replay_cuda(lanes_, history, record, parts_, device_.device_id, stream);
      } else {
        replay_cpu(lanes_, history, record, parts_, threads, [&] { return signals.none(); });
      }
    }
    if (signals.raised) throw py::error_already_set();
  }

  /// The rates of lanes on the host that have neither a warm-up nor noise: their masters, or what
  /// others wrote.
  std::vector<double> rates() const {
    std::vector<double> found(static_cast<std::size_t>(lanes_.num_groups));
    for (std::int64_t i = 0; i < lanes_.num_groups; ++i) {
      const double rate = lanes_.state.rate[i];
      const float published = lanes_.state.published[i];
      found[static_cast<std::size_t>(i)] =
          static_cast<float>(rate) == published ? rate : static_cast<double>(published);
    }
    return found;
  }

  /// Whether a tensor that users were given is not where it was, or not what it was.
  bool has_moved() const noexcept { return published_.moved() || (best_is_out_ && best_.moved()); }

  Turn& turn() noexcept { return turn_; }

  std::int64_t calls = 0;  // steps, which the caller may count on from another number

 private:
  std::int64_t step_in_turn(py::handle array, py::handle mask) {
    const InTurn mine(turn_);
    const py::object held = storage_of(array), held_mask = mask ? storage_of(mask) : py::none();
    Metrics metrics;
    const std::uint8_t* active = nullptr;
    if (!reads(array, metrics) || (mask && !reads_mask(mask, active))) return kUnreadable;
    if (has_moved()) return kMoved;
    if (device_.device_type == kDLCUDA) return launch(array, metrics, active);
    Stepped done;
    if (is_long_) {
      const int threads = lanes_.n < 2 * kLanesPerThread ? 1 : num_threads();
      without_lock([&] { done = run(metrics, active, threads); });
    } else {
      done = run(metrics, active);
    }
    return tell(done);
  }

  bool is_here(const DLTensor& tensor) const {
    return device_.device_type == kDLCUDA ? same(tensor.device, device_) : on_cpu(tensor);
  }

  /// Whether `array` holds a metric for each lane, where it can be read in place.
  bool reads(py::handle array, Metrics& out) const {
    DLTensor tensor;
    const bool read = lanes_.n == 1 ? borrow_one(array, tensor) : borrow(array, tensor);
    if (!read || !is_here(tensor)) return false;
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

  /// Whether `mask` is a contiguous bool vector, one for each lane.
  bool reads_mask(py::handle mask, const std::uint8_t*& out) const {
    DLTensor flags;
    if (!locate(mask, flags) || !is_here(flags)) return false;  // no bool is negated
    out = static_cast<const std::uint8_t*>(data_of(flags));
    return flags.ndim == 1 && flags.shape[0] == lanes_.n &&
           (flags.shape[0] < 2 || flags.strides[0] == 1) && dtype_of(flags.dtype) == Dtype::kBool &&
           (out || lanes_.n == 0);
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

  Stepped run(const Metrics& metrics, const std::uint8_t* active, int threads = 1) const noexcept {
    if (lanes_.n == 0) return {};
    return active || parts_ ? step_lanes_cpu(lanes_, metrics, active, threads)
                            : step_cpu(lanes_, metrics, threads);
  }

  /// One in the child of a fork, as in torch's own operations, whose threads these are.
  int num_threads() const noexcept {
    if (get_num_threads_.is_none() || !has_team()) return 1;
    PyObject* answer = PyObject_CallNoArgs(get_num_threads_.ptr());
    const long threads = answer ? PyLong_AsLong(answer) : 1;
    Py_XDECREF(answer);
    if (PyErr_Occurred()) PyErr_Clear();
    return static_cast<int>(std::clamp(threads, 1L, 1024L));
  }

  /// The state is ordered by the stream of the library that made it. Metrics of another library are
  /// on a stream of that one's: it is asked to make them safe on ours, which takes Python.
  std::int64_t launch(py::handle array, const Metrics& metrics, const std::uint8_t* active) {
    if (current_stream_of(array) != current_stream_) return kUnreadable;
    void* stream = nullptr;
    if (current_stream_(kDLCUDA, device_.device_id, &stream) != 0) throw py::error_already_set();
    {
      const py::gil_scoped_release unlocked;  // a launch waits where thousands are in the queue
      if (active || parts_) {
        step_lanes_cuda(lanes_, metrics, active, device_.device_id, stream);
      } else {
        step_cuda(lanes_, metrics, device_.device_id, stream);
      }
    }
    ++calls;
    written(best_is_out_ ? rates_and_best_ : rates_);  // nobody here knows what was
    return 0;
  }

  /// Tells torch what a step wrote of what users were given, so that autograd can refuse to use a
  /// value that it saved before. Where `best` never was given to anybody that costs nothing.
  std::int64_t tell(const Stepped& done) noexcept {
    ++calls;
    if (best_is_out_ && done.improved) {
      written(rates_and_best_);
    } else if (done.reduced > 0 || done.published) {
      written(rates_);
    }
    return done.reduced;
  }

  void written(const py::tuple& tensors) const noexcept {
    if (increment_version_.is_none()) return;
    PyObject* answer = PyObject_CallOneArg(increment_version_.ptr(), tensors.ptr());
    if (!answer) PyErr_Clear();
    Py_XDECREF(answer);
  }

  py::object increment_version_;
  py::object get_num_threads_;
  py::object owners_;  // keeps what is behind the pointers alive
  Handed published_, best_;
  py::tuple rates_, rates_and_best_;
  bool best_is_out_ = false;  // a user was given it
  DLDevice device_{};
  CurrentStream current_stream_ = nullptr;
  Turn turn_;
  Lanes lanes_{};
  bool parts_ = false;    // whether whole steps are those of lanes with optional parts
  bool is_long_ = false;  // so that a step gives the interpreter lock up
};

PyObject* step_fast(Batch& batch, PyObject* const* args) noexcept {
  return answer([&] { return PyLong_FromLongLong(batch.step(args[0], {})); });
}

PyObject* step_masked_fast(Batch& batch, PyObject* const* args) noexcept {
  return answer([&] { return PyLong_FromLongLong(batch.step(args[0], args[1])); });
}

}  // namespace

void register_lanes(py::module_& m) {
  const py::custom_type_setup with_buffer([](PyHeapTypeObject* type) {
    type->as_buffer.bf_getbuffer = &Memory::fill;
    type->ht_type.tp_as_buffer = &type->as_buffer;
  });
  py::class_<Memory>(m, "Memory", with_buffer, "Uninitialised bytes that the core owns.")
      .def(py::init<std::size_t>(), py::arg("size"));
  py::class_<Batch> lanes(m, "Lanes", "N lanes over tensors that the caller allocated.");
  lanes
      .def(py::init<py::object, py::object>(), py::arg("increment_version"),
           py::arg("get_num_threads") = py::none())
      .def("connect", &Batch::connect, py::arg("tensors"), py::arg("settings"), py::arg("parts"),
           py::arg("keep") = py::none(), py::arg("writes") = std::vector<py::object>(),
           py::arg("owner") = py::none(), py::arg("names") = Named(py::dict()),
           "Take tensors and settings, all or nothing, at once.")
      .def("watch_best", &Batch::watch_best,
           "Users have best: it may be moved, and torch is told of writes.")
      .def_readwrite("calls", &Batch::calls)
      .def("rates", &Batch::rates, "Rates of lanes on the host, without a warm-up or noise.")
      .def("has_moved", &Batch::has_moved, "Whether lr or best is not where it was.")
      .def("replay", &Batch::replay, py::arg("history"), py::arg("rows"), py::arg("threads"),
           "Step through a history, [epochs] or [epochs, n], and fill the flat tensors in `rows`.");
  def_turn(lanes, "Lanes");
  m.def(
      "call_each", &call_each, py::arg("calls"),
      "Call each of these, and no Python code in between. What lacks memory is called again, with "
      "memory that was set aside.");
  def_fast<Batch, 1, step_fast>(
      lanes, "step",
      "step(self: torch_plateau._core.Lanes, metrics: object) -> int\n\n"
      "Advance every lane. Returns how many had a rate lowered (0 on a GPU, where nobody knows "
      "yet); or, and nothing changed, UNREADABLE if `metrics` cannot be read in place and MOVED if "
      "tensors are no longer where they were.");
  def_fast<Batch, 2, step_masked_fast>(
      lanes, "step_masked",
      "step_masked(self: torch_plateau._core.Lanes, metrics: object, active: object) -> int\n\n"
      "The same for the lanes of which `active` holds no 0; the others keep their state.");
  m.attr("HUGE_PAGE") = Memory::kHuge;  // bytes
  m.attr("UNREADABLE") = kUnreadable;
  m.attr("MOVED") = kMoved;
}

}  // namespace plateau
