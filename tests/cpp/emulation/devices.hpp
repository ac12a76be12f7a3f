// SPDX-License-Identifier: BSD-3-Clause
// The emulated devices and which of them is current. As with CUDA, a device has a context of its
// own only while somebody holds it; a thread begins with none current, and device 0 is so by name.
#pragma once

#include <set>
#include <vector>

namespace emulation {

struct Device {
  int major = 8;                 // of its compute capability
  int holders = 0;               // of its own context
  bool in_use = false;           // so that the runtime is one of them
  std::set<const void*> loaded;  // kernels
};

inline Device devices[2];
inline std::vector<Device*> pushed;      // whose context is current is the last
inline int pushes = 0;                   // so far
inline const char* failing_driver = "";  // the driver's function that fails
inline const char* missing_driver = "";  // the one that the driver has not got

inline int current() { return pushed.empty() ? 0 : static_cast<int>(pushed.back() - devices); }

/// What cudaSetDevice does, and the first use of a device that is current by name alone.
inline void choose(int device) {
  Device& chosen = devices[device];
  chosen.holders += !chosen.in_use;
  chosen.in_use = true;
  if (pushed.empty()) pushed.push_back(nullptr);
  pushed.back() = &chosen;
}

/// The current device, to be worked on.
inline Device& use() {
  if (pushed.empty()) choose(0);
  return *pushed.back();
}

/// As in a process, and a thread, that never used CUDA.
inline void forget() {
  for (Device& device : devices) device = Device{};
  pushed.clear();
  pushes = 0;
}

}  // namespace emulation
