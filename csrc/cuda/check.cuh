// SPDX-License-Identifier: BSD-3-Clause
// CUDA calls that fail throw, by name; the device that is current comes back.
#pragma once

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

/// Makes `device` current for as long as it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) : device_(device) {
    PLATEAU_CUDA(cudaGetDevice(&before_));
    if (before_ != device_) PLATEAU_CUDA(cudaSetDevice(device_));
  }
  ~DeviceGuard() {
    if (before_ != device_ && cudaSetDevice(before_) != cudaSuccess) cudaGetLastError();
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int device_;
  int before_ = 0;
};

}  // namespace plateau
