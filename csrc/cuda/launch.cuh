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

/// The same for a kernel that begins with wait_for_those_before(): the device may make it ready
/// while the kernel before it on the stream ends, where the device can do so ("programmatic
/// dependent launch", from compute capability 9.0 on).
template <class... P, class... A>
void launch_early(void (*kernel)(P...), unsigned grid, unsigned block, int device, void* stream,
                  A... args) {
  int major = 0;
  PLATEAU_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  if (major < 9) {
    launch(kernel, grid, block, stream, args...);
    return;
  }
  cudaLaunchAttribute early[1];
  early[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early[0].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid);
  config.blockDim = dim3(block);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = early;
  config.numAttrs = 1;
  PLATEAU_CUDA(cudaLaunchKernelEx(&config, kernel, args...));
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
