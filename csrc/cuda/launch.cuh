// SPDX-License-Identifier: BSD-3-Clause
// One way to launch a kernel, and to load it before a graph is captured.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/check.cuh"

namespace plateau {

inline unsigned blocks(std::int64_t items, std::int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

template <class... P, class... A>
void launch(void (*kernel)(P...), unsigned grid, unsigned block, void* stream, A... args) {
  void* pointers[] = {&args...};
  static_assert((std::is_same_v<std::remove_const_t<P>, A> && ...));
  PLATEAU_CUDA(cudaLaunchKernel(kernel, dim3(grid), dim3(block), pointers, 0,
                                static_cast<cudaStream_t>(stream)));
}

template <class... P>
void load(void (*kernel)(P...)) {
  cudaFuncAttributes attributes;
  PLATEAU_CUDA(cudaFuncGetAttributes(&attributes, kernel));
}

/// Loads the kernels of a replay, and of the optimizers, onto the current device.
void load_replay();
void load_optimizers();

}  // namespace plateau
