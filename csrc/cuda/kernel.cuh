// SPDX-License-Identifier: BSD-3-Clause
// The kernels. A thread takes a few neighbouring lanes through one step, in registers; rates are
// touched only for lanes that fire.
#pragma once

#include <cstdint>
#include <type_traits>

#include "plateau/group.hpp"
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

/// The rule for one lane, all but the cut. Returns Outcome bits, where kReduced says that it fired.
template <class T>
__device__ int decide(const Settings& settings, std::int64_t lane, T metric, T& best,
                      std::int32_t& clock) {
  const Gate gate{settings.gate_scale[lane], settings.gate_shift[lane],
                  settings.maximize[lane] != 0};
  const bool improved = improves(metric, best, gate);
  if (improved) best = metric;
  clock = tick(clock, improved);
  const bool fired = fires(clock, settings.patience[lane]);
  if (fired) clock = -settings.cooldown[lane];
  return (improved ? kImproved : 0) | (fired ? kReduced : 0);
}

template <class T, class M, int kWidth>
__device__ void step_pack(const Lanes& lanes, const Metrics& metrics, std::int64_t first) {
  auto& all_best = pack<kWidth>(static_cast<T*>(lanes.best), first);
  const auto metric = load_metrics<T, M, kWidth>(metrics, first);
  auto best = all_best;
  auto clock = pack<kWidth>(lanes.clock, first);
  int bits[kWidth];
  int any = 0;
#pragma unroll
  for (int w = 0; w < kWidth; ++w) {
    bits[w] = decide(lanes.settings, first + w, metric.at[w], best.at[w], clock.at[w]);
    any |= bits[w];
  }
  pack<kWidth>(lanes.clock, first) = clock;
  if (any & kImproved) all_best = best;
  if (any & kReduced) {
#pragma unroll
    for (int w = 0; w < kWidth; ++w) {
      if (!(bits[w] & kReduced)) continue;
      if (cut_group(lanes, first + w, first + w)) {
        ++lanes.num_reductions[first + w];
      } else {
        bits[w] &= ~kReduced;
      }
    }
  }
  Pack<std::uint8_t, kWidth> outcome;
#pragma unroll
  for (int w = 0; w < kWidth; ++w) outcome.at[w] = static_cast<std::uint8_t>(bits[w]);
  pack<kWidth>(lanes.outcome, first) = outcome;
}

/// Without a return value this waits for nothing, where ++ would for the memory to answer.
inline __device__ void count_step(const Lanes& lanes) {
  atomicAdd(reinterpret_cast<unsigned long long*>(lanes.num_steps), 1ULL);
}

/// One rate per lane: a thread takes `kWidth` lanes.
template <class T, class M, int kWidth>
__global__ void step_lanes(const Lanes lanes, const Metrics metrics) {
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread == 0) count_step(lanes);
  std::int64_t lane = thread * kWidth;
  if (lane + kWidth <= lanes.n) {
    step_pack<T, M, kWidth>(lanes, metrics, lane);
  } else {
    for (; lane < lanes.n; ++lane) step_pack<T, M, 1>(lanes, metrics, lane);
  }
}

// Where lanes own several rates, at most:
constexpr int kLanesPerBlock = 256;
constexpr int kGroupThreads = 1024;

/// The lanes of a block, and where their rates begin.
struct Range {
  std::int64_t begin;
  int count;
};

inline __device__ Range range_of(const Lanes& lanes, int per_block) {
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * per_block;
  const std::int64_t rest = lanes.n - begin;
  return {begin, static_cast<int>(rest < per_block ? rest : per_block)};
}

/// Which of `count` lanes owns `group`: the last one whose groups begin at or before it.
inline __device__ int owner_of(const std::int64_t* offsets, int count, std::int64_t group) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (offsets[middle] <= group ? low : high) = middle;
  }
  return low;
}

/// Any number of rates per lane. A block decides for `per_block` lanes, a thread each, and then, if
/// any fired, shares all rates of these lanes among its threads, however they are spread over
/// lanes.
template <class T>
__global__ void __launch_bounds__(kGroupThreads)
    step_groups(const Lanes lanes, const Metrics metrics, const int per_block) {
  __shared__ std::int64_t offsets[kLanesPerBlock + 1];
  __shared__ int fired[kLanesPerBlock];
  __shared__ int reduced[kLanesPerBlock];
  const Range range = range_of(lanes, per_block);
  const int mine = static_cast<int>(threadIdx.x);
  const std::int64_t lane = range.begin + mine;
  int bits = 0;
  if (lane == 0) count_step(lanes);
  if (mine < range.count) {
    T best = static_cast<T*>(lanes.best)[lane];
    bits = decide(lanes.settings, lane, metric_at<T>(metrics, lane), best, lanes.clock[lane]);
    if (bits & kImproved) static_cast<T*>(lanes.best)[lane] = best;
    lanes.outcome[lane] = static_cast<std::uint8_t>(bits & kImproved);
    fired[mine] = bits & kReduced;
    reduced[mine] = 0;
    offsets[mine] = lanes.first_group(lane);
    if (mine == range.count - 1) offsets[range.count] = lanes.first_group(lane + 1);
  }
  if (!__syncthreads_or(bits & kReduced)) return;
  for (std::int64_t group = offsets[0] + mine; group < offsets[range.count]; group += blockDim.x) {
    const int owner = owner_of(offsets, range.count, group);
    if (fired[owner] && cut_group(lanes, range.begin + owner, group)) atomicOr(&reduced[owner], 1);
  }
  __syncthreads();
  if (mine < range.count && reduced[mine]) {
    lanes.outcome[lane] = static_cast<std::uint8_t>(bits);
    ++lanes.num_reductions[lane];
  }
}

/// Lanes with optional parts: in the same way, with the two halves of lane.hpp.
template <class T>
__global__ void __launch_bounds__(kGroupThreads)
    step_options(const Lanes lanes, const Options options, const Metrics metrics,
                 const std::uint8_t* active, const int per_block) {
  __shared__ std::int64_t offsets[kLanesPerBlock + 1];
  __shared__ double values[kLanesPerBlock];
  __shared__ int asked[kLanesPerBlock];
  __shared__ int done[kLanesPerBlock];
  const Range range = range_of(lanes, per_block);
  const int mine = static_cast<int>(threadIdx.x);
  const std::int64_t lane = range.begin + mine;
  int ask = 0;
  if (lane == 0) count_step(lanes);
  if (mine < range.count) {
    double metric = metric_at<double>(metrics, lane);
    if (!active || active[lane]) ask = begin_step<T>(lanes, options, lane, metric);
    values[mine] = metric;
    asked[mine] = ask;
    done[mine] = 0;
    offsets[mine] = lanes.first_group(lane);
    if (mine == range.count - 1) offsets[range.count] = lanes.first_group(lane + 1);
  }
  if (__syncthreads_or(ask & (kAskCut | kAskWarmUp))) {
    for (std::int64_t group = offsets[0] + mine; group < offsets[range.count];
         group += blockDim.x) {
      const int owner = owner_of(offsets, range.count, group);
      if (!(asked[owner] & (kAskCut | kAskWarmUp))) continue;
      const int bits =
          step_group<T>(lanes, options, range.begin + owner, group, asked[owner], values[owner]);
      if (bits) atomicOr(&done[owner], bits);
    }
    __syncthreads();
  }
  if (mine < range.count) {
    lanes.outcome[lane] =
        static_cast<std::uint8_t>(end_step(lanes, options, lane, ask, done[mine]));
  }
}

}  // namespace plateau
