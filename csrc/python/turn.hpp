// SPDX-License-Identifier: BSD-3-Clause
// Whose turn it is to touch some lanes: one thread at a time, the same thread as often as it likes.
#pragma once

#include <pybind11/pybind11.h>

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
  /// Waits for it, without the interpreter lock. Throws what a signal handler raises meanwhile.
  void take();
  void give() noexcept;

 private:
  unsigned long owner_ = 0;  // a thread's number; meaningless where depth_ is 0
  int depth_ = 0;
  int generation_ = 0;  // of processes, by forks
};

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
