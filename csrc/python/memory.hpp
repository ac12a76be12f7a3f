// SPDX-License-Identifier: BSD-3-Clause
// Memory of the host that the core owns and tensors look at: torch cannot free it under a step.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

namespace plateau {

class Memory {
 public:
  explicit Memory(std::size_t bytes)
      : bytes_(bytes), memory_(::operator new(bytes, std::align_val_t{kAlignment})) {
    std::memset(memory_, 0, bytes);
  }
  ~Memory() { ::operator delete(memory_, std::align_val_t{kAlignment}); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  pybind11::buffer_info info() {
    return {static_cast<std::uint8_t*>(memory_), static_cast<pybind11::ssize_t>(bytes_)};
  }

 private:
  static constexpr std::size_t kAlignment = 64;  // of a vector, and what borrow() looks for
  std::size_t bytes_;
  void* memory_;
};

}  // namespace plateau
