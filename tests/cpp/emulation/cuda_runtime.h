// SPDX-License-Identifier: BSD-3-Clause
// As much of CUDA as csrc/cuda needs, on the host: a thread for each thread of a block, one block
// after another. It lets the kernels and their launches be tested, and searched for races and bad
// accesses with the compiler's sanitizers, where there is no GPU. It says nothing about speed.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "barrier.hpp"
#include "cuda.h"
#include "devices.hpp"

#define PLATEAU_EMULATION
#define __global__
#define __device__
#define __shared__ static  // one block at a time
#define __launch_bounds__(...)

struct dim3 {
  constexpr explicit dim3(unsigned width) : x(width) {}
  unsigned x;
};

inline thread_local dim3 threadIdx{0}, blockIdx{0}, blockDim{0};

namespace emulation {

inline thread_local bool synchronised = false;
inline Barrier* barrier = nullptr;
inline std::set<const void*> launched;  // kernels, so far
inline int launches = 0;                // so far
inline void* stream = nullptr;          // of the last launch
inline int launched_on = -1;            // device of the last launch
inline bool early = false;              // whether the last launch might begin early
inline int failing = 0;                 // the status of loads and launches

template <class... P, std::size_t... kAt>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<kAt...>) {
  kernel(*static_cast<P*>(arguments[kAt])...);
}

template <class... P>
void run(void (*kernel)(P...), unsigned grid, unsigned block, void** arguments) {
  Barrier all(static_cast<int>(block));
  barrier = &all;
  const auto body = [&](unsigned index) {
    threadIdx.x = index;
    blockDim.x = block;
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x) {
      synchronised = false;
      call(kernel, arguments, std::index_sequence_for<P...>{});
      if (synchronised) all.wait(0);  // the next block uses the same shared memory
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < block; ++i) threads.emplace_back(body, i);
  for (auto& thread : threads) thread.join();
  barrier = nullptr;
}

}  // namespace emulation

inline int __syncthreads_or(int value) {
  emulation::synchronised = true;
  return emulation::barrier->wait(value);
}
inline void __syncthreads() { __syncthreads_or(0); }
inline int atomicOr(int* address, int value) {
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}

inline int atomicAdd(int* address, int value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

using cudaError_t = int;
using cudaStream_t = void*;
struct cudaFuncAttributes {};
#define CUDART_VERSION 13000
constexpr cudaError_t cudaSuccess = 0;
constexpr int cudaMemcpyDefault = 4;

inline cudaError_t cudaGetLastError() { return std::exchange(emulation::failing, 0); }
inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorEmulated"; }
inline const char* cudaGetErrorString(cudaError_t) { return "made to fail"; }

inline cudaError_t cudaGetDevice(int* device) { return *device = emulation::current(), 0; }
inline cudaError_t cudaSetDevice(int device) { return emulation::choose(device), 0; }

enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSymbolNotFound };
constexpr unsigned long long cudaEnableDefault = 0;

inline cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** found, unsigned,
                                                    unsigned long long,
                                                    cudaDriverEntryPointQueryResult*) {
  const std::pair<const char*, void*> functions[] = {
      {"cuDevicePrimaryCtxRetain", reinterpret_cast<void*>(&cuDevicePrimaryCtxRetain)},
      {"cuDevicePrimaryCtxRelease", reinterpret_cast<void*>(&cuDevicePrimaryCtxRelease)},
      {"cuCtxPushCurrent", reinterpret_cast<void*>(&cuCtxPushCurrent)},
      {"cuCtxPopCurrent", reinterpret_cast<void*>(&cuCtxPopCurrent)}};
  for (const auto& [known, function] : functions) {
    const bool asked = std::strcmp(known, name) == 0;
    if (asked && std::strcmp(emulation::missing_driver, name) != 0) *found = function;
  }
  return 0;
}

inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  emulation::use();
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return 0;
}
inline cudaError_t cudaFree(void* memory) { return std::free(memory), 0; }
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, int) {
  return bytes ? (std::memcpy(to, from, bytes), 0) : 0;
}

template <class... P>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, void (*kernel)(P...)) {
  if (emulation::failing) return emulation::failing;
  emulation::use().loaded.insert(reinterpret_cast<const void*>(kernel));
  return 0;
}

template <class... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments,
                             std::size_t, cudaStream_t stream) {
  if (emulation::failing) return emulation::failing;
  if (grid.x == 0 || block.x == 0 || block.x > 1024) return 9;  // cudaErrorInvalidConfiguration
  emulation::use();
  emulation::launched.insert(reinterpret_cast<const void*>(kernel));
  ++emulation::launches;
  emulation::stream = stream;
  emulation::launched_on = emulation::current();
  emulation::early = false;
  emulation::run(kernel, grid.x, block.x, arguments);
  return 0;
}

enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  return *value = emulation::devices[device].major, 0;
}

enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim{1}, blockDim{1};
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...),
                               A&&... args) {
  void* pointers[] = {&args...};
  const cudaError_t status =
      cudaLaunchKernel(kernel, config->gridDim, config->blockDim, pointers, 0, config->stream);
  emulation::early =
      config->numAttrs == 1 && config->attrs[0].val.programmaticStreamSerializationAllowed == 1;
  return status;
}
