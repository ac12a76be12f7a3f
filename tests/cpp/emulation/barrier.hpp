// SPDX-License-Identifier: BSD-3-Clause
// __syncthreads() and its kin, for threads of the host.
#pragma once

#include <atomic>
#include <thread>

namespace emulation {

/// All threads of a block wait for one another, and learn whether any of them brought a value. They
/// yield in turn: to be put to sleep and woken costs hundreds of threads on two cores ten times as
/// much.
class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}

  int wait(int value) {
    const long mine = generation_.load(std::memory_order_relaxed);
    any_.fetch_or(value, std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      answer_ = any_.exchange(0, std::memory_order_relaxed);
      generation_.store(mine + 1, std::memory_order_release);
      return answer_;
    }
    while (generation_.load(std::memory_order_acquire) == mine) std::this_thread::yield();
    return answer_;
  }

 private:
  const int threads_;
  std::atomic<int> arrived_{0};
  std::atomic<int> any_{0};
  std::atomic<long> generation_{0};
  int answer_ = 0;  // of the last generation: written before it, and read after it
};

}  // namespace emulation
