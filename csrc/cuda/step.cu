// SPDX-License-Identifier: BSD-3-Clause
// Launches: which kernel, how many threads, on whose device and stream.
#include <algorithm>
#include <cstdint>

#include "cuda/check.cuh"
#include "cuda/groups.cuh"
#include "cuda/kernel.cuh"
#include "cuda/launch.cuh"
#include "cuda/parts.cuh"
#include "plateau/step.hpp"

namespace plateau {
namespace {

constexpr int kThreads = kLaneThreads;
constexpr int kWide = 4;                        // lanes a thread, where that is worth it:
constexpr std::int64_t kFillsDevice = 1 << 18;  // fewer lanes would leave processors idle
constexpr std::uintptr_t kAligned = 16;

/// Whether `metrics` is a plain array of `dtype` that can be read 16 bytes at a time.
bool is_plain(const Metrics& metrics, Dtype dtype) {
  return metrics.dtype == dtype && metrics.stride == 1 &&
         reinterpret_cast<std::uintptr_t>(metrics.data) % kAligned == 0;
}

bool is_aligned(const Lanes& lanes) {
  const auto on_boundary = [](const void* data) {
    return reinterpret_cast<std::uintptr_t>(data) % kAligned == 0;
  };
  const Settings& settings = lanes.settings;
  return on_boundary(lanes.state.best) && on_boundary(lanes.state.clock) &&
         on_boundary(lanes.state.outcome) && on_boundary(settings.threshold.each) &&
         on_boundary(settings.atol.each) && on_boundary(settings.patience.each) &&
         on_boundary(settings.mode.each);
}

template <class T, class M>
void launch_few(const Lanes& lanes, const Metrics& metrics, int device, void* stream) {
  const bool alike = lanes.one_gate && lanes.one_bears && lanes.one_cutting;
  const auto kernel = alike ? &step_few<T, M, false> : &step_few<T, M, true>;
  launch_early(kernel, blocks(lanes.n, kThreads), kThreads, device, stream, metrics, lanes);
}

template <class T, class M, int kWidth>
void launch_many(const Lanes& lanes, const Metrics& metrics, void* stream) {
  const bool alike = lanes.one_gate && lanes.one_bears;
  const auto kernel = alike ? &step_many<T, M, kWidth, false> : &step_many<T, M, kWidth, true>;
  launch(kernel, blocks(lanes.n, kThreads * kWidth), kThreads, stream, metrics, lanes);
}

/// One rate a lane: kWidth lanes a thread where they and the metrics can be read so.
template <class T, class M, int kWidth>
void launch_lanes(const Lanes& lanes, const Metrics& metrics, int device, void* stream) {
  if (lanes.n < kFillsDevice) {
    launch_few<T, M>(lanes, metrics, device, stream);
  } else if (is_aligned(lanes)) {
    launch_many<T, M, kWidth>(lanes, metrics, stream);
  } else {
    launch_many<T, Any, 1>(lanes, metrics, stream);
  }
}

/// How lanes are dealt out to blocks whose threads share the lanes' rates: as many to each as give
/// its threads a rate, and where there are lanes enough to fill the device, a lane.
struct Blocks {
  explicit Blocks(const Lanes& lanes) {
    const std::int64_t mean = std::max<std::int64_t>(lanes.num_groups / lanes.n, 1);
    const std::int64_t share = lanes.n / (kFillsDevice / kLanesPerBlock);
    per_block = static_cast<int>(
        std::clamp<std::int64_t>(std::max(kGroupThreads / mean, share), 1, kLanesPerBlock));
    threads = mean < kGroupThreads ? kThreads : kGroupThreads;
    grid = blocks(lanes.n, per_block);
  }
  int per_block;
  unsigned threads;
  unsigned grid;
};

template <class T>
void launch_groups(const Lanes& lanes, const Metrics& metrics, void* stream) {
  const Blocks by(lanes);
  launch(&step_groups<T>, by.grid, by.threads, stream, lanes, metrics, by.per_block);
}

template <class T, bool kLight>
void launch_parts(const Lanes& lanes, const Metrics& metrics, const std::uint8_t* active,
                  int device, void* stream) {
  const bool alike = are_without(lanes, &leave_out_own);
  auto kernel = &step_parts<T, Any, true, kLight>;
  if (alike && is_plain(metrics, Dtype::kFloat32)) {
    kernel = &step_parts<T, float, false, kLight>;
  } else if (alike && sizeof(T) == 8 && is_plain(metrics, Dtype::kFloat64)) {
    kernel = &step_parts<T, T, false, kLight>;
  }
  launch_early(kernel, blocks(lanes.n, kThreads), kThreads, device, stream, metrics, lanes, active);
}

template <class T>
void step_lanes_on(const Lanes& lanes, const Metrics& metrics, const std::uint8_t* active,
                   int device, void* stream) {
  if (lanes.offsets) {
    const Blocks by(lanes);
    launch(&step_grouped_parts<T>, by.grid, by.threads, stream, lanes, metrics, active,
           by.per_block);
  } else if (are_without(lanes, &leave_out_heavy)) {
    launch_parts<T, true>(lanes, metrics, active, device, stream);
  } else {
    launch_parts<T, false>(lanes, metrics, active, device, stream);
  }
}

template <class T>
void step_on(const Lanes& lanes, const Metrics& metrics, int device, void* stream) {
  constexpr bool kDouble = sizeof(T) == 8;
  if (lanes.offsets) {
    launch_groups<T>(lanes, metrics, stream);
  } else if (kDouble && is_plain(metrics, Dtype::kFloat64)) {
    launch_lanes<T, T, kWide>(lanes, metrics, device, stream);
  } else if (is_plain(metrics, Dtype::kFloat32)) {
    launch_lanes<T, float, kWide>(lanes, metrics, device, stream);
  } else {
    launch_lanes<T, Any, 1>(lanes, metrics, device, stream);
  }
}

template <class T, class M, int kWidth>
void load_lanes() {
  load(&step_few<T, M, false>);
  load(&step_few<T, M, true>);
  load(&step_many<T, M, kWidth, false>);
  load(&step_many<T, M, kWidth, true>);
}

template <class T, bool kLight>
void load_parts() {
  load(&step_parts<T, T, false, kLight>);
  load(&step_parts<T, float, false, kLight>);
  load(&step_parts<T, Any, true, kLight>);
}

template <class T>
void load_all() {
  load_lanes<T, T, kWide>();
  load_lanes<T, float, kWide>();
  load_lanes<T, Any, 1>();
  load_parts<T, true>();
  load_parts<T, false>();
  load(&step_groups<T>);
  load(&step_grouped_parts<T>);
}

}  // namespace

void step_cuda(const Lanes& lanes, const Metrics& metrics, int device, void* stream) {
  if (lanes.n == 0) return;
  const DeviceGuard guard(device);
  if (lanes.best_dtype == Dtype::kFloat32) {
    step_on<float>(lanes, metrics, device, stream);
  } else {
    step_on<double>(lanes, metrics, device, stream);
  }
}

void step_lanes_cuda(const Lanes& lanes, const Metrics& metrics, const std::uint8_t* active,
                     int device, void* stream) {
  if (lanes.n == 0) return;
  const DeviceGuard guard(device);
  if (lanes.best_dtype == Dtype::kFloat32) {
    step_lanes_on<float>(lanes, metrics, active, device, stream);
  } else {
    step_lanes_on<double>(lanes, metrics, active, device, stream);
  }
}

void prepare_cuda(int device) {
  const DeviceGuard guard(device);
  load_all<float>();
  load_all<double>();
  load_replay();
  load_optimizers();
}

#define PLATEAU_TEXT(...) #__VA_ARGS__
#define PLATEAU_TEXT_OF(...) PLATEAU_TEXT(__VA_ARGS__)

CudaBuild cuda_build() noexcept {
  return {PLATEAU_TEXT_OF(__CUDACC_VER_MAJOR__.__CUDACC_VER_MINOR__),
          PLATEAU_TEXT_OF(__CUDA_ARCH_LIST__)};
}

}  // namespace plateau
