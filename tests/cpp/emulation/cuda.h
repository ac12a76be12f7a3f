// SPDX-License-Identifier: BSD-3-Clause
// As much of CUDA's driver as csrc/cuda needs: a device's own context.
#pragma once

#include <cstring>

#include "devices.hpp"

enum CUresult { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_CONTEXT = 201, CUDA_ERROR_UNKNOWN = 999 };
using CUdevice = int;
using CUcontext = emulation::Device*;

namespace emulation {

inline CUresult answer_of(const char* function) {
  return std::strcmp(failing_driver, function) == 0 ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
}

}  // namespace emulation

inline CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (const CUresult bad = emulation::answer_of("cuDevicePrimaryCtxRetain")) return bad;
  *context = &emulation::devices[device];
  ++(*context)->holders;
  return CUDA_SUCCESS;
}

inline CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  --emulation::devices[device].holders;
  return CUDA_SUCCESS;
}

inline CUresult cuCtxPushCurrent(CUcontext context) {
  if (const CUresult bad = emulation::answer_of("cuCtxPushCurrent")) return bad;
  if (context->holders == 0) return CUDA_ERROR_INVALID_CONTEXT;
  emulation::pushed.push_back(context);
  ++emulation::pushes;
  return CUDA_SUCCESS;
}

inline CUresult cuCtxPopCurrent(CUcontext* context) {
  if (emulation::pushed.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  *context = emulation::pushed.back();
  emulation::pushed.pop_back();
  return CUDA_SUCCESS;
}
