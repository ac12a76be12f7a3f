// SPDX-License-Identifier: BSD-3-Clause
// The kernels. A thread decides for a few neighbouring lanes, in registers; rates are touched only
// for lanes that fire.
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

/// Cuts a lane with one rate that fired. Returns Outcome bits.
inline __device__ int fire(const Lanes& lanes, std::int64_t lane, std::int32_t& clock) {
  const std::int64_t step = lanes.steps(lane) + 1;  // read before anything is written
  const bool reduced = cut_group(lanes, lane, lane).lowered();
  return end_fire(lanes, lane, step, reduced, clock);
}

/// Decides for `kWidth` lanes; `fired` is called for each that fires and returns its Outcome bits.
template <class T, class M, int kWidth, class OnFire>
__device__ void step_pack(const Lanes& lanes, const Metrics& metrics, std::int64_t first,
                          const OnFire& fired) {
  auto& all_best = pack<kWidth>(static_cast<T*>(lanes.state.best), first);
  auto best = all_best;
  auto clock = pack<kWidth>(lanes.state.clock, first);
  const auto metric = load_metrics<T, M, kWidth>(metrics, first);  // last: conversions wait for it
  int bits[kWidth];
  int any = 0;
#pragma unroll
  for (int w = 0; w < kWidth; ++w) {
    bits[w] = decide(lanes, first + w, metric.at[w], best.at[w], clock.at[w]);
    any |= bits[w];
  }
  if (any & kImproved) all_best = best;
  if (any & kFired) {
#pragma unroll
    for (int w = 0; w < kWidth; ++w) {
      if (bits[w] & kFired) bits[w] |= fired(first + w, clock.at[w]);
    }
  }
  pack<kWidth>(lanes.state.clock, first) = clock;
  Pack<std::uint8_t, kWidth> outcome;
#pragma unroll
  for (int w = 0; w < kWidth; ++w) outcome.at[w] = static_cast<std::uint8_t>(bits[w]);
  pack<kWidth>(lanes.state.outcome, first) = outcome;
}

/// Counts steps for the lanes [begin, end) of a block, which all its threads have read by now. No
/// other block has lanes of these counts.
inline __device__ void count_steps(const Lanes& lanes, std::int64_t begin, std::int64_t end,
                                   std::int64_t steps) {
  __syncthreads();
  const std::int64_t last = lanes.num_counts(end);
  for (std::int64_t i = lanes.count_of(begin) + threadIdx.x; i < last; i += blockDim.x) {
    // Not for want of order: nobody waits for an addition whose result is not asked for.
    atomicAdd(reinterpret_cast<unsigned long long*>(lanes.state.num_steps + i),
              static_cast<unsigned long long>(steps));
  }
}

constexpr int kLaneThreads = static_cast<int>(kLanesPerCount);

/// One rate per lane: a thread decides for `kWidth` lanes. With several each, where there are many
/// lanes in all, those of a block that fire are put on a list, which is then shared out: they are
/// few as a rule, and a thread that cut its own would hold up its warp for as many reads.
template <class T, class M, int kWidth>
__global__ void __launch_bounds__(kLaneThreads)
    step_lanes(const Metrics metrics, const Lanes lanes) {
  constexpr bool kList = kWidth > 1;
  __shared__ int list[kList ? kLaneThreads * kWidth : 1];
  __shared__ int count;
  if constexpr (kList) {
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
  }
  const std::int64_t width = static_cast<std::int64_t>(blockDim.x) * kWidth;
  const std::int64_t begin = blockIdx.x * width;
  const std::int64_t end = begin + width < lanes.n ? begin + width : lanes.n;
  const auto fired = [&](std::int64_t lane, std::int32_t& clock) {
    if constexpr (!kList) return fire(lanes, lane, clock);
    list[atomicAdd(&count, 1)] = static_cast<int>(lane - begin);
    return 0;
  };
  std::int64_t lane = begin + static_cast<std::int64_t>(threadIdx.x) * kWidth;
  if (lane + kWidth <= lanes.n) {
    step_pack<T, M, kWidth>(lanes, metrics, lane, fired);
  } else {
    for (; lane < lanes.n; ++lane) step_pack<T, M, 1>(lanes, metrics, lane, fired);
  }
  if constexpr (kList) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
      const std::int64_t listed = begin + list[i];
      std::uint8_t& outcome = lanes.state.outcome[listed];
      outcome = static_cast<std::uint8_t>(outcome | fire(lanes, listed, lanes.state.clock[listed]));
    }
  }
  count_steps(lanes, begin, end, 1);
}

// Where lanes own several rates, at most:
constexpr int kLanesPerBlock = static_cast<int>(kLanesPerCount);
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
  if (mine < range.count) {
    T best = static_cast<T*>(lanes.state.best)[lane];
    bits = decide(lanes, lane, metric_at<T>(metrics, lane), best, lanes.state.clock[lane]);
    if (bits & kImproved) static_cast<T*>(lanes.state.best)[lane] = best;
    fired[mine] = bits & kFired;
    reduced[mine] = 0;
    offsets[mine] = lanes.first_group(lane);
    if (mine == range.count - 1) offsets[range.count] = lanes.first_group(lane + 1);
  }
  if (__syncthreads_or(bits & kFired)) {
    for (std::int64_t group = offsets[0] + mine; group < offsets[range.count];
         group += blockDim.x) {
      const int owner = owner_of(offsets, range.count, group);
      if (fired[owner] && cut_group(lanes, range.begin + owner, group).lowered()) {
        atomicOr(&reduced[owner], 1);
      }
    }
    __syncthreads();
  }
  if (mine < range.count) {
    if (bits & kFired) {
      bits |= end_fire(lanes, lane, lanes.steps(lane) + 1, reduced[mine], lanes.state.clock[lane]);
    }
    lanes.state.outcome[lane] = static_cast<std::uint8_t>(bits);
  }
  count_steps(lanes, range.begin, range.begin + range.count, 1);
}

/// Lanes with optional parts or a mask: in the same way, with the two halves of lane.hpp.
template <class T>
__global__ void __launch_bounds__(kGroupThreads)
    step_parts(const Lanes lanes, const Metrics metrics, const std::uint8_t* active,
               const int per_block) {
  __shared__ std::int64_t offsets[kLanesPerBlock + 1];
  __shared__ double values[kLanesPerBlock];
  __shared__ int asked[kLanesPerBlock];
  __shared__ int done[kLanesPerBlock];
  const Range range = range_of(lanes, per_block);
  const int mine = static_cast<int>(threadIdx.x);
  const std::int64_t lane = range.begin + mine;
  std::int64_t step = 0;
  int ask = 0;
  if (mine < range.count) {
    double metric = metric_at<double>(metrics, lane);
    Told told;
    step = lanes.age(lane) + 1;
    if (!active || active[lane]) {
      ask = begin_step<T>(lanes, lane, step, metric, told);
    } else {
      pass_by(lanes, lane);
    }
    values[mine] = metric;
    asked[mine] = ask;
    done[mine] = 0;
    offsets[mine] = lanes.first_group(lane);
    if (mine == range.count - 1) offsets[range.count] = lanes.first_group(lane + 1);
  }
  if (__syncthreads_or(ask & kAskRates)) {
    for (std::int64_t group = offsets[0] + mine; group < offsets[range.count];
         group += blockDim.x) {
      const int owner = owner_of(offsets, range.count, group);
      if (!(asked[owner] & kAskRates)) continue;
      const std::int64_t owned = range.begin + owner;
      const int bits =
          step_group<T>(lanes, owned, group, lanes.age(owned) + 1, asked[owner], values[owner]);
      if (bits) atomicOr(&done[owner], bits);
    }
    __syncthreads();
  }
  if (mine < range.count) {
    lanes.state.outcome[lane] =
        static_cast<std::uint8_t>(end_step(lanes, lane, step, ask, done[mine]));
  }
  count_steps(lanes, range.begin, range.begin + range.count, 1);
}

}  // namespace plateau
