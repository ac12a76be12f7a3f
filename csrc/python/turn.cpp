// SPDX-License-Identifier: BSD-3-Clause
#include "python/turn.hpp"

#include <pybind11/pybind11.h>

#include <atomic>
#include <chrono>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define PLATEAU_FORKS
#endif

namespace py = pybind11;

namespace plateau {
namespace {

constexpr std::chrono::microseconds kPause{20};

std::atomic<int> running{0};
int generation = 0;

void let_them_finish() {
  while (running.load() > 0) std::this_thread::sleep_for(kPause);
}

/// Once, when the module is loaded.
const bool watching = [] {
#if defined(PLATEAU_FORKS)
  pthread_atfork(&let_them_finish, nullptr, [] {
    ++generation;
    running = 0;
  });
#endif
  return true;
}();

}  // namespace

bool Turn::taken() const noexcept {
  return depth_ > 0 && generation_ == generation && owner_ != PyThread_get_thread_ident();
}

void Turn::forget_others() noexcept {
  if (generation_ != generation) depth_ = waiting_ = 0;
  generation_ = generation;
}

void Turn::take() {
  forget_others();
  const unsigned long me = PyThread_get_thread_ident();
  if (depth_ == 0 || owner_ != me) wait(me);
  seize();
}

void Turn::seize() noexcept {
  forget_others();
  owner_ = PyThread_get_thread_ident();
  ++depth_;
}

void Turn::wait(unsigned long me) {
  struct Waiting {
    explicit Waiting(int& count) : count(count) { ++count; }
    ~Waiting() { --count; }
    int& count;
  };
  const Waiting waiting(waiting_);
  while (taken() || (owner_ == me && waiting_ > 1)) {
    {
      py::gil_scoped_release unlocked;
      std::this_thread::sleep_for(kPause);
    }
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

void Turn::give() noexcept {
  if (depth_ > 0) --depth_;
}

void begin_running() noexcept { ++running; }
void end_running() noexcept { --running; }

}  // namespace plateau
