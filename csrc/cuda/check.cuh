// SPDX-License-Identifier: BSD-3-Clause
// CUDA calls that fail throw, by name; the device that is current comes back.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace plateau {

/// Throws if `status`, the answer of the CUDA call named `call`, is an error. The error is cleared,
/// so that it does not come up in a later call of somebody else.
inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorName(status) + ", " +
                           cudaGetErrorString(status));
}

#define PLATEAU_CUDA(call) ::plateau::check((call), #call)

/// The driver's function `name`: there where a device is, without being linked to.
template <class Function>
Function driver(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult answer{};
#if CUDART_VERSION >= 12050
  PLATEAU_CUDA(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &answer));
#else
  PLATEAU_CUDA(cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &answer));
#endif
  if (!found) throw std::runtime_error(std::string(name) + ": not in this driver");
  return reinterpret_cast<Function>(found);
}

inline void check_driver(CUresult status, const char* call) {
  if (status == CUDA_SUCCESS) return;
  throw std::runtime_error(std::string(call) + ": CUresult " +
                           std::to_string(static_cast<int>(status)));
}

/// Makes `device`, on which there is memory, current for as long as it lives. On a thread that
/// never used CUDA no device is current but number 0 by name: to set that one again afterwards
/// would make a context on it, some 500 MB. So the device's own context is pushed over whatever
/// there is, and popped again.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    int before = 0;
    PLATEAU_CUDA(cudaGetDevice(&before));
    if (before == device) return;
    static const auto retain =
        driver<CUresult (*)(CUcontext*, CUdevice)>("cuDevicePrimaryCtxRetain");
    static const auto push = driver<CUresult (*)(CUcontext)>("cuCtxPushCurrent");
    static const auto pop = driver<CUresult (*)(CUcontext*)>("cuCtxPopCurrent");
    static const auto release = driver<CUresult (*)(CUdevice)>("cuDevicePrimaryCtxRelease");
    CUcontext context = nullptr;
    check_driver(retain(&context, device), "cuDevicePrimaryCtxRetain");
    device_ = device;
    pop_ = pop;
    release_ = release;
    if (const CUresult status = push(context); status != CUDA_SUCCESS) {
      release(device);
      check_driver(status, "cuCtxPushCurrent");
    }
  }
  ~DeviceGuard() {
    if (!pop_) return;
    CUcontext context = nullptr;
    pop_(&context);
    release_(device_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  CUdevice device_ = 0;
  CUresult (*pop_)(CUcontext*) = nullptr;  // null where nothing was pushed
  CUresult (*release_)(CUdevice) = nullptr;
};

}  // namespace plateau
