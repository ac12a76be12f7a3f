// SPDX-License-Identifier: BSD-3-Clause
// The threads of OpenMP, in the place of libgomp's, for ThreadSanitizer: libgomp waits in ways that
// it cannot see, so all that one of its threads writes and another reads would look like a race.
// Preloaded before libgomp it serves torch and the core alike.
#include <dlfcn.h>

#include <thread>
#include <vector>

namespace {

thread_local int number = 0, count = 1;

int most() {
  static const auto asked = reinterpret_cast<int (*)()>(dlsym(RTLD_NEXT, "omp_get_max_threads"));
  return asked ? asked() : 1;
}

}  // namespace

extern "C" {

int omp_get_thread_num() { return number; }
int omp_get_num_threads() { return count; }
int omp_in_parallel() { return count > 1; }

void GOMP_parallel(void (*work)(void*), void* data, unsigned asked, unsigned) {
  const int threads = count > 1 ? 1 : asked ? static_cast<int>(asked) : most();
  const int outer_number = number, outer_count = count;
  const auto run = [=](int i) {
    number = i;
    count = threads;
    work(data);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(run, i);
  run(0);
  for (std::thread& other : others) other.join();
  number = outer_number;
  count = outer_count;
}

}  // extern "C"
