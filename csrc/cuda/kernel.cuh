// SPDX-License-Identifier: BSD-3-Clause
// The kernels of plain lanes with one rate each. Where there are many, a thread decides for a few
// neighbouring ones in registers, and rates are touched only for lanes that fire; where there are
// few, nothing is moved that counts, and all is asked for at once.
#pragma once

#include <cstdint>
#include <type_traits>

#include "plateau/fire.hpp"
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/rule.hpp"
#include "plateau/types.hpp"

namespace plateau {

/// `kWidth` neighbours in memory, moved 16 bytes at a time where there are as many.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth < 16 ? sizeof(T) * kWidth : 16) Pack {
  T at[kWidth];
};

template <int kWidth, class T>
__device__ Pack<T, kWidth>& pack(T* array, std::int64_t first) {
  return *reinterpret_cast<Pack<T, kWidth>*>(array + first);
}

/// Metrics of any dtype and stride, or (M a type) a plain array of M on a 16-byte boundary.
struct Any {};

template <class T, class M, int kWidth>
__device__ Pack<T, kWidth> load_metrics(const Metrics& metrics, std::int64_t first) {
  Pack<T, kWidth> out;
  if constexpr (std::is_same_v<M, Any>) {
    for (int w = 0; w < kWidth; ++w) out.at[w] = metric_at<T>(metrics, first + w);
  } else {
    const auto in =
        *reinterpret_cast<const Pack<M, kWidth>*>(static_cast<const M*>(metrics.data) + first);
    for (int w = 0; w < kWidth; ++w) out.at[w] = static_cast<T>(in.at[w]);
  }
  return out;
}

/// A setting of neighbours: their own, or the one of all lanes.
template <int kWidth, class S>
__device__ Pack<S, kWidth> setting_of(const Setting<S>& setting, std::int64_t first) {
  if (setting.each) return *reinterpret_cast<const Pack<S, kWidth>*>(setting.each + first);
  Pack<S, kWidth> same;
#pragma unroll
  for (int w = 0; w < kWidth; ++w) same.at[w] = setting.all;
  return same;
}

/// By what `kWidth` neighbours decide, where all lanes decide alike ...
template <int kWidth, bool kOwn>
struct Terms {
  __device__ Terms(const Lanes& lanes, std::int64_t)
      : one{lanes.gate.scale, lanes.gate.shift, lanes.gate.maximize}, borne_by_all(lanes.bears) {}
  __device__ Gate gate(int) const { return one; }
  __device__ std::int32_t bears(int) const { return borne_by_all; }

  Gate one;  // of a plain step, whose gates are not safe
  std::int32_t borne_by_all;
};

/// ... and where some of these settings are one per lane, all of which are asked for before any is
/// waited for. (Words that may ask for optional parts are never one per lane in a plain step.)
template <int kWidth>
struct Terms<kWidth, true> {
  __device__ Terms(const Lanes& lanes, std::int64_t first)
      : threshold(setting_of<kWidth>(lanes.settings.threshold, first)),
        atol(setting_of<kWidth>(lanes.settings.atol, first)),
        patience(setting_of<kWidth>(lanes.settings.patience, first)),
        mode(setting_of<kWidth>(lanes.settings.mode, first)),
        threshold_mode(lanes.settings.threshold_mode.all == kAbs ? kAbs : kRel),
        counting(lanes.settings.counting.all) {}
  __device__ Gate gate(int w) const {
    return gate_of(mode.at[w], threshold.at[w], threshold_mode, atol.at[w]);
  }
  __device__ std::int32_t bears(int w) const { return borne(patience.at[w], counting); }

  Pack<double, kWidth> threshold, atol;
  Pack<std::int32_t, kWidth> patience;
  Pack<std::uint8_t, kWidth> mode;
  std::uint8_t threshold_mode, counting;
};

/// Adds to a count; not for want of order: nobody waits for an addition whose result is not asked
/// for.
inline __device__ void add(std::int64_t& count, std::int64_t steps) {
  atomicAdd(reinterpret_cast<unsigned long long*>(&count), static_cast<unsigned long long>(steps));
}

/// Counts steps for the lanes [begin, end) of a block, which all its threads have read by now. No
/// other block has lanes of these counts.
inline __device__ void count_steps(const Lanes& lanes, std::int64_t begin, std::int64_t end,
                                   std::int64_t steps) {
  __syncthreads();
  const std::int64_t last = lanes.num_counts(end);
  for (std::int64_t i = lanes.count_of(begin) + threadIdx.x; i < last; i += blockDim.x) {
    add(lanes.state.num_steps[i], steps);
  }
}

/// Counts a step for the lanes of a block that has kLanesPerCount of them, with one rate each.
inline __device__ void count_step(const Lanes& lanes) {
  __syncthreads();
  if (threadIdx.x == 0) add(lanes.state.num_steps[blockIdx.x], 1);
}

/// Waits for the kernels before this one on its stream, where it may begin while they end: see
/// launch_early().
inline __device__ void wait_for_those_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

constexpr int kLaneThreads = static_cast<int>(kLanesPerCount);

/// Few lanes: what costs is waiting for memory, and for each 64 bytes of the arguments. So a thread
/// has one lane, and asks for what the lane needs if it fires before it knows whether it does.
template <class T, class M, bool kOwn>
__global__ void __launch_bounds__(kLaneThreads) step_few(const Metrics metrics, const Lanes lanes) {
  wait_for_those_before();
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kLaneThreads;
  const std::int64_t mine = begin + threadIdx.x, last = lanes.n - 1;
  const std::int64_t lane = mine < last ? mine : last;  // a thread without one reads the last
  const std::int64_t steps = lanes.state.num_steps[blockIdx.x];
  T best = static_cast<const T*>(lanes.state.best)[lane];
  std::int32_t clock = lanes.state.clock[lane];
  const double rate = lanes.state.rate[lane];
  const float published = lanes.state.published[lane];
  const Terms<1, kOwn> terms(lanes, lane);
  const T metric = load_metrics<T, M, 1>(metrics, lane).at[0];
  count_step(lanes);
  if (mine > last) return;
  int bits = decide(terms.gate(0), terms.bears(0), metric, best, clock);
  if (bits & kImproved) static_cast<T*>(lanes.state.best)[lane] = best;
  if (bits & kFired) {
    const Cutting by = kOwn ? lanes.cutting_at(lane, lane) : lanes.cutting;
    const Cut now = cut_of(rate, published, by);
    if (now.lowered()) write_rate(lanes, lane, now.rate);
    bits |= end_fire(lanes, lane, steps + 1, now.lowered(), by.cooldown, by.counting, clock);
  }
  lanes.state.clock[lane] = clock;
  lanes.state.outcome[lane] = static_cast<std::uint8_t>(bits);
}

/// Cuts a lane with one rate that fired. Returns Outcome bits.
inline __device__ int fire(const Lanes& lanes, std::int64_t lane, std::int32_t& clock) {
  const std::int64_t step = lanes.steps(lane) + 1;  // read before anything is written
  const bool reduced = cut_group(lanes, lane, lane).lowered();
  return end_fire(lanes, lane, step, reduced, clock);
}

/// Decides for `kWidth` lanes; `fired` is called for each that fires.
template <class T, class M, int kWidth, bool kOwn, class OnFire>
__device__ void step_pack(const Lanes& lanes, const Metrics& metrics, std::int64_t first,
                          const OnFire& fired) {
  auto& all_best = pack<kWidth>(static_cast<T*>(lanes.state.best), first);
  auto best = all_best;
  auto clock = pack<kWidth>(lanes.state.clock, first);
  const Terms<kWidth, kOwn> terms(lanes, first);
  const auto metric = load_metrics<T, M, kWidth>(metrics, first);  // last: conversions wait for it
  int bits[kWidth];
  int any = 0;
#pragma unroll
  for (int w = 0; w < kWidth; ++w) {
    bits[w] = decide(terms.gate(w), terms.bears(w), metric.at[w], best.at[w], clock.at[w]);
    any |= bits[w];
  }
  if (any & kImproved) all_best = best;
  if (any & kFired) {
#pragma unroll
    for (int w = 0; w < kWidth; ++w) {
      if (bits[w] & kFired) fired(first + w);
    }
  }
  pack<kWidth>(lanes.state.clock, first) = clock;
  Pack<std::uint8_t, kWidth> outcome;
#pragma unroll
  for (int w = 0; w < kWidth; ++w) outcome.at[w] = static_cast<std::uint8_t>(bits[w]);
  pack<kWidth>(lanes.state.outcome, first) = outcome;
}

/// Blocks that a processor should have room for, 0 for as many as it may: where a thread reads
/// much, the compiler would put off some of it to save registers, and wait two or three times.
template <class T, int kWidth, bool kOwn>
constexpr int kRoomFor = kWidth > 1 && (kOwn || sizeof(T) == 8) ? 4 : 0;

/// Many lanes: a thread decides for `kWidth`, with `kOwn` by settings of their own. Those of a
/// block that fire are put on a list, which is then shared out: they are few as a rule, and a
/// thread that cut its own would hold up its warp for as many reads.
template <class T, class M, int kWidth, bool kOwn>
__global__ void __launch_bounds__(kLaneThreads, kRoomFor<T, kWidth, kOwn>)
    step_many(const Metrics metrics, const Lanes lanes) {
  __shared__ int list[kLaneThreads * kWidth];
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  const std::int64_t width = static_cast<std::int64_t>(blockDim.x) * kWidth;
  const std::int64_t begin = blockIdx.x * width;
  const std::int64_t end = begin + width < lanes.n ? begin + width : lanes.n;
  const auto fired = [&](std::int64_t lane) {
    list[atomicAdd(&count, 1)] = static_cast<int>(lane - begin);
  };
  std::int64_t lane = begin + static_cast<std::int64_t>(threadIdx.x) * kWidth;
  if (lane + kWidth <= lanes.n) {
    step_pack<T, M, kWidth, kOwn>(lanes, metrics, lane, fired);
  } else {
    for (; lane < lanes.n; ++lane) step_pack<T, M, 1, kOwn>(lanes, metrics, lane, fired);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    const std::int64_t listed = begin + list[i];
    std::uint8_t& outcome = lanes.state.outcome[listed];
    outcome = static_cast<std::uint8_t>(outcome | fire(lanes, listed, lanes.state.clock[listed]));
  }
  count_steps(lanes, begin, end, 1);
}

}  // namespace plateau
