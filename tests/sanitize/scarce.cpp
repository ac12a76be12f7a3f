// SPDX-License-Identifier: BSD-3-Clause
// Memory that is used up once, at the k-th allocation of a call: of C++ by `operator new` from the
// core's frames, or of Python's objects. Preloaded, so that its `operator new` is everybody's.
#include <Python.h>
#include <execinfo.h>
#include <link.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>

#pragma weak PyMem_GetAllocator
#pragma weak PyMem_SetAllocator

namespace {

enum Kind : int { kNone, kNew, kPython };

std::atomic<int> armed{kNone};
std::atomic<long> left{0};
std::thread::id caller;  // whose allocations of Python count

struct Range {
  const char* name;
  std::uintptr_t first = 0, last = 0;
  bool has(const void* address) const {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    return first <= at && at < last;
  }
};
Range core{"/_core."}, standard{"/libstdc++."};

int find_range(dl_phdr_info* info, std::size_t, void*) {
  for (Range* range : {&core, &standard}) {
    if (!std::strstr(info->dlpi_name, range->name)) continue;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& part = info->dlpi_phdr[i];
      if (part.p_type != PT_LOAD || !(part.p_flags & PF_X)) continue;
      range->first = info->dlpi_addr + part.p_vaddr;
      range->last = range->first + part.p_memsz;
    }
  }
  return 0;
}

bool used_up(int kind) { return armed.load() == kind && left.fetch_sub(1) == 0; }

/// Whether the core asked, itself or by what it called of the standard library.
bool by_core(const void* caller_of_new) {
  if (armed.load() != kNew) return false;
  if (!standard.has(caller_of_new)) return core.has(caller_of_new);
  std::array<void*, 12> frames;
  const int count = backtrace(frames.data(), frames.size());
  for (int i = 1; i < count; ++i) {
    if (core.has(frames[i])) return true;
    if (i > 2 && !standard.has(frames[i])) return false;  // the first two are here
  }
  return false;
}

template <int Domain>
struct Hook {
  static inline PyMemAllocatorEx before;
  static bool fails() {
    return armed.load() == kPython && std::this_thread::get_id() == caller && used_up(kPython);
  }
  static void* malloc(void* ctx, std::size_t size) {
    return fails() ? nullptr : before.malloc(ctx, size);
  }
  static void* calloc(void* ctx, std::size_t n, std::size_t size) {
    return fails() ? nullptr : before.calloc(ctx, n, size);
  }
  static void* realloc(void* ctx, void* old, std::size_t size) {
    return fails() ? nullptr : before.realloc(ctx, old, size);
  }
  static void set() {
    constexpr auto domain = static_cast<PyMemAllocatorDomain>(Domain);
    PyMem_GetAllocator(domain, &before);
    PyMemAllocatorEx mine{before.ctx, &malloc, &calloc, &realloc, before.free};
    PyMem_SetAllocator(domain, &mine);
  }
};

void tell_who(int signal) {
  std::array<void*, 64> frames;
  const int count = backtrace(frames.data(), frames.size());
  backtrace_symbols_fd(frames.data(), count, STDERR_FILENO);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

// pybind11 remembers a new object where nothing guards it: without these the process ends.
constexpr std::size_t kOfPybind = 24;

void* allocated(std::size_t size, std::size_t alignment, const void* from) {
  if (size != kOfPybind && by_core(from) && used_up(kNew)) throw std::bad_alloc();
  void* found = alignment
                    ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
                    : std::malloc(size ? size : 1);
  if (!found) throw std::bad_alloc();
  return found;
}

}  // namespace

void* operator new(std::size_t size) { return allocated(size, 0, __builtin_return_address(0)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocated(size, static_cast<std::size_t>(alignment), __builtin_return_address(0));
}

extern "C" {

/// Once the core is loaded.
void scarce_install() {
  dl_iterate_phdr(&find_range, nullptr);
  Hook<PYMEM_DOMAIN_RAW>::set();
  Hook<PYMEM_DOMAIN_MEM>::set();
  Hook<PYMEM_DOMAIN_OBJ>::set();
  for (int signal : {SIGABRT, SIGSEGV, SIGBUS}) std::signal(signal, &tell_who);
}

void scarce_arm(int kind, long k) {
  caller = std::this_thread::get_id();
  left = k;
  armed = kind;
}

/// How many more allocations there would have had to be; below 0 if one failed.
long scarce_disarm() {
  armed = kNone;
  return left;
}

}  // extern "C"
