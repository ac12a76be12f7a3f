// SPDX-License-Identifier: BSD-3-Clause
// Whose turn it is to touch some lanes: one thread at a time, the same thread as often as it likes.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <new>
#include <string>

#include "python/fast.hpp"

namespace plateau {

/// All members are read and written with the interpreter lock held. A step of few lanes keeps that
/// lock and needs no turn, only a look that nobody else has one; a step of many gives the lock up,
/// and what changes lanes is Python code that can be interrupted by other threads: these take a
/// turn.
///
/// A fork waits for steps that run without the interpreter lock, so that the child never finds
/// lanes half stepped; and turns of threads that are not in the child count as over there.
class Turn {
 public:
  /// Whether another thread has the turn.
  bool taken() const noexcept;
  /// Waits for it, without the interpreter lock; who had it last lets those go first that wait.
  /// Throws what a signal handler raises meanwhile.
  void take();
  /// Takes it at once, where it is not taken.
  void seize() noexcept;
  void give() noexcept;

 private:
  void forget_others() noexcept;  // who are not in the child of a fork
  void wait(unsigned long me);

  unsigned long owner_ = 0;  // a thread's number; where depth_ is 0 who had the turn last
  int depth_ = 0;
  int waiting_ = 0;     // threads
  int generation_ = 0;  // of processes, by forks
};

/// Has the turn until it goes out of scope.
struct InTurn {
  explicit InTurn(Turn& turn, bool at_once = false) : turn_(turn) {
    at_once ? turn.seize() : turn.take();
  }
  ~InTurn() { turn_.give(); }
  InTurn(const InTurn&) = delete;
  InTurn& operator=(const InTurn&) = delete;

 private:
  Turn& turn_;
};

/// Runs what Python code calls, whose result may be null; C++ exceptions become Python's.
template <class Call>
PyObject* answer(Call call) noexcept {
  try {
    return call();
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

template <class Self>
PyObject* enter_fast(Self& self, PyObject* const*) noexcept {
  return answer([&] {
    self.turn().take();
    return Py_NewRef(Py_None);
  });
}

template <class Self>
PyObject* leave_fast(Self& self, PyObject* const*) noexcept {
  self.turn().give();
  Py_RETURN_NONE;
}

/// Makes `with` take the turn that the object's `turn()` is.
template <class Self>
void def_turn(pybind11::class_<Self>& type, const std::string& name) {
  static const std::string self = "(self: torch_plateau._core." + name;
  static const std::string enter = "__enter__" + self + ") -> None";
  static const std::string leave =
      "__exit__" + self + ", arg0: object, arg1: object, arg2: object) -> None";
  def_fast<Self, 0, enter_fast<Self>>(type, "__enter__", enter.c_str());
  def_fast<Self, 3, leave_fast<Self>>(type, "__exit__", leave.c_str());
}

/// Around a host loop without the interpreter lock: the first is called with the lock still held,
/// the second before it is taken again.
void begin_running() noexcept;
void end_running() noexcept;

/// Runs a host loop without the interpreter lock.
template <class Body>
void without_lock(Body body) {
  begin_running();
  const pybind11::gil_scoped_release unlocked;
  body();
  end_running();
}

}  // namespace plateau
