// SPDX-License-Identifier: BSD-3-Clause
// Memory of the host that the core owns and tensors look at: torch cannot free it under a step.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
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

  /// The buffer of a Python object that holds one. It takes no memory of its own, where pybind11's
  /// ends the process if there is none.
  static int fill(PyObject* self, Py_buffer* view, int flags) noexcept {
    auto* instance = reinterpret_cast<pybind11::detail::instance*>(self);
    auto* memory = instance->get_value_and_holder().template value_ptr<Memory>();
    if (!memory) return PyErr_SetString(PyExc_BufferError, "__init__ was not called"), -1;
    const auto size = static_cast<Py_ssize_t>(memory->bytes_);
    return PyBuffer_FillInfo(view, self, memory->memory_, size, 0, flags);
  }

 private:
  static constexpr std::size_t kVector = 64;  // what borrow() looks for, too
  std::size_t bytes_, alignment_;
  void* memory_;
};

}  // namespace plateau
