// SPDX-License-Identifier: BSD-3-Clause
// Work that is dealt out to threads of the host.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace plateau {

/// Calls `work()` on up to `threads` new threads, and on this one.
template <class Work>
void on_threads(int threads, const Work& work) {
  std::vector<std::thread> others;
  try {
    for (int i = 1; i < threads; ++i) others.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads to be had: those there are do it all
  } catch (const std::bad_alloc&) {
  }
  work();
  for (std::thread& other : others) other.join();
}

/// The same on the threads of the OpenMP that the process has loaded, if it has: torch's, between
/// whose operations this comes. They wait for work by spinning, so that threads of our own would
/// not get a processor for a while.
template <class Work>
void on_team(int threads, const Work& work) {
#if defined(__linux__)
  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  static const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  if (parallel && threads > 1) {
    const auto call = [](void* body) { (*static_cast<const Work*>(body))(); };
    parallel(call, const_cast<Work*>(&work), static_cast<unsigned>(threads), 0);
    return;
  }
#endif
  on_threads(threads, work);
}

/// `work()` that takes `items` one after another and calls `body(item)`, with others that do so.
template <class Body>
auto taking_turns(std::atomic<std::int64_t>& next, std::int64_t items, const Body& body) {
  return [&next, items, &body] {
    for (std::int64_t item = next++; item < items; item = next++) body(item);
  };
}

}  // namespace plateau
