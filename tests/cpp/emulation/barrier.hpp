// SPDX-License-Identifier: BSD-3-Clause
// __syncthreads() and its kin, for threads of the host.
#pragma once

#include <condition_variable>
#include <mutex>

namespace emulation {

/// All threads of a block wait for one another, and learn whether any of them brought a value.
class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}

  int wait(int value) {
    std::unique_lock<std::mutex> lock(mutex_);
    any_ |= value;
    if (++arrived_ == threads_) {
      arrived_ = 0;
      answer_ = any_;
      any_ = 0;
      ++generation_;
      lock.unlock();
      all_here_.notify_all();
      return answer_;
    }
    const long mine = generation_;
    all_here_.wait(lock, [&] { return generation_ != mine; });
    return answer_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_here_;
  const int threads_;
  int arrived_ = 0;
  int any_ = 0;
  int answer_ = 0;
  long generation_ = 0;
};

}  // namespace emulation
