// SPDX-License-Identifier: BSD-3-Clause
// Memory of the host that the core owns and tensors look at: torch cannot free it under a step.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace plateau {

/// Uninitialised bytes. Where there are many they lie in huge pages, if the system has any: a step
/// touches a few bytes of each page of a dozen arrays, and finding the pages takes longer than
/// that.
class Memory {
 public:
  explicit Memory(std::size_t bytes)
      : bytes_(bytes),
        alignment_(bytes < kHuge ? kVector : kHuge),
        memory_(::operator new(bytes, std::align_val_t{alignment_})) {
#if defined(MADV_HUGEPAGE)
    if (alignment_ == kHuge) madvise(memory_, bytes / kHuge * kHuge, MADV_HUGEPAGE);
#endif
  }
  ~Memory() { ::operator delete(memory_, std::align_val_t{alignment_}); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  static constexpr std::size_t kHuge = 1U << 21;  // a huge page on x86-64, and on most of ARM

  pybind11::buffer_info info() {
    return {static_cast<std::uint8_t*>(memory_), static_cast<pybind11::ssize_t>(bytes_)};
  }

 private:
  static constexpr std::size_t kVector = 64;  // what borrow() looks for, too
  std::size_t bytes_, alignment_;
  void* memory_;
};

}  // namespace plateau
