// SPDX-License-Identifier: BSD-3-Clause
// Work that is dealt out to threads of the host.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace plateau {

/// Items dealt out in shares of neighbours.
class Shares {
 public:
  Shares(std::int64_t items, int shares) : shares_(static_cast<std::size_t>(shares)) {
    for (int i = 0; i < shares; ++i) {
      Share& share = shares_[static_cast<std::size_t>(i)];
      share.next = items * i / shares;
      share.end = items * (i + 1) / shares;
    }
  }

  /// Calls `body(item)` for what nobody has taken of a share yet.
  template <class Body>
  void take(int index, const Body& body) {
    Share& share = shares_[static_cast<std::size_t>(index)];
    for (std::int64_t item = share.next++; item < share.end; item = share.next++) body(item);
  }

 private:
  struct alignas(64) Share {  // each on a cache line of its own
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };
  std::vector<Share> shares_;
};

/// Calls `work(share)` for each of `threads` shares, the one of this thread first: it meets the
/// same items in every step, and finds them in its caches. Then it helps the others.
template <class Work>
void work_through(int thread, int threads, const Work& work) {
  for (int i = 0; i < threads; ++i) work((thread + i) % threads);
}

/// The work of `threads` shares on as many threads: this one, and new ones.
template <class Work>
void on_threads(int threads, const Work& work) {
  std::vector<std::thread> others;
  try {
    others.reserve(static_cast<std::size_t>(threads) - 1);
    for (int i = 1; i < threads; ++i) {
      others.emplace_back([i, threads, &work] { work_through(i, threads, work); });
    }
  } catch (const std::system_error&) {  // no more threads to be had: those there are do it all
  } catch (const std::bad_alloc&) {
  }
  work_through(0, threads, work);
  for (std::thread& other : others) other.join();
}

#if defined(__linux__)
/// A function of the OpenMP that the process has loaded, if it has: torch's.
template <class Function>
Function* of_openmp(const char* name) noexcept {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

/// Whether this process is the child of a fork: it has none of the threads that OpenMP waits for.
inline std::atomic<bool> is_forked{false};
inline const int asked_for_forks =
    pthread_atfork(nullptr, nullptr, [] { is_forked.store(true, std::memory_order_relaxed); });
#endif

/// Whether there are threads of OpenMP to be had.
inline bool has_team() noexcept {
#if defined(__linux__)
  static const bool found = of_openmp<void()>("GOMP_parallel") != nullptr;
  return found && !is_forked;
#else
  return false;
#endif
}

/// The same on the threads of the OpenMP that the process has loaded, between whose operations this
/// comes. They wait for work by spinning, so that threads of our own would not get a processor for
/// a while.
template <class Work>
void on_team(int threads, const Work& work) {
#if defined(__linux__)
  static const auto parallel =
      of_openmp<void(void (*)(void*), void*, unsigned, unsigned)>("GOMP_parallel");
  static const auto number = of_openmp<int()>("omp_get_thread_num");
  if (number && threads > 1 && has_team()) {
    const std::pair<int, const Work&> all(threads, work);
    const auto call = [](void* given) {
      const auto& [shares, body] = *static_cast<const std::pair<int, const Work&>*>(given);
      work_through(number(), shares, body);
    };
    parallel(call, const_cast<std::pair<int, const Work&>*>(&all), static_cast<unsigned>(threads),
             0);
    return;
  }
#endif
  on_threads(threads, work);
}

}  // namespace plateau
