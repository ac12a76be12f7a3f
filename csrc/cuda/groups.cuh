// SPDX-License-Identifier: BSD-3-Clause
// The kernels of lanes that own several rates: a block decides for its lanes, a thread each, and
// then its threads share the rates of those that fired.
#pragma once

#include <cstdint>

#include "cuda/kernel.cuh"
#include "plateau/fire.hpp"
#include "plateau/lane.hpp"
#include "plateau/metric.hpp"

namespace plateau {

// At most:
constexpr int kLanesPerBlock = static_cast<int>(kLanesPerCount);
constexpr int kGroupThreads = 1024;

/// The lanes of a block.
struct Range {
  std::int64_t begin;
  int count;
};

inline __device__ Range range_of(const Lanes& lanes, int per_block) {
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * per_block;
  const std::int64_t rest = lanes.n - begin;
  return {begin, static_cast<int>(rest < per_block ? rest : per_block)};
}

/// The rates of those lanes of a block that ask for it, in one row that is shared out among all
/// threads, however the rates are spread over lanes. In shared memory.
struct SharedRates {
  /// To be called by all threads when `sizes` are there: lines up the rates of the block's lanes,
  /// of which those of lane number `mine` begin at `begin` in memory. Ends with a barrier.
  __device__ void line_up(int lanes, int mine, std::int64_t begin) {
    if (lanes > kRun) {
      if (mine * kRun < lanes) {
        std::int64_t sum = 0;
        for (int i = mine * kRun; i < lanes && i < (mine + 1) * kRun; ++i) sum += sizes[i];
        runs[mine] = sum;
      }
      __syncthreads();
    }
    if (mine < lanes) {
      std::int64_t before = 0;
      for (int i = 0; i < mine / kRun; ++i) before += runs[i];
      for (int i = mine / kRun * kRun; i < mine; ++i) before += sizes[i];
      end[mine] = before + sizes[mine];
      shift[mine] = begin - before;
    }
    __syncthreads();
  }

  /// Calls `body(lane of the block, group)` for each rate of the row, once, on some thread.
  template <class Body>
  __device__ void share(int lanes, const Body& body) const {
    for (std::int64_t i = threadIdx.x; i < end[lanes - 1]; i += blockDim.x) {
      int low = 0, high = lanes - 1;  // the owner is the first whose rates end behind this one
      while (low < high) {
        const int middle = (low + high) / 2;
        if (end[middle] > i) {
          high = middle;
        } else {
          low = middle + 1;
        }
      }
      body(low, shift[low] + i);
    }
  }

  static constexpr int kRun = 16;            // lanes whose sizes one thread adds up
  std::int64_t sizes[kLanesPerBlock];        // how many rates each lane asks for,
  std::int64_t runs[kLanesPerBlock / kRun];  // and each kRun of them
  std::int64_t end[kLanesPerBlock];          // where those of each lane end in the row
  std::int64_t shift[kLanesPerBlock];        // from a place in the row to the rate's in memory
};

/// Where the rates of a lane are.
struct Owned {
  std::int64_t begin = 0, end = 0;
};
inline __device__ Owned owned_by(const Lanes& lanes, std::int64_t lane) {
  return {lanes.first_group(lane), lanes.first_group(lane + 1)};
}

/// Any number of rates per lane.
template <class T>
__global__ void __launch_bounds__(kGroupThreads)
    step_groups(const Lanes lanes, const Metrics metrics, const int per_block) {
  __shared__ SharedRates rates;
  __shared__ int reduced[kLanesPerBlock];
  const Range range = range_of(lanes, per_block);
  const int mine = static_cast<int>(threadIdx.x);
  const std::int64_t lane = range.begin + mine;
  int bits = 0;
  std::int32_t clock = 0;
  Owned owned;
  if (mine < range.count) {
    owned = owned_by(lanes, lane);
    T best = static_cast<T*>(lanes.state.best)[lane];
    clock = lanes.state.clock[lane];
    bits = decide(lanes, lane, metric_at<T>(metrics, lane), best, clock);
    if (bits & kImproved) static_cast<T*>(lanes.state.best)[lane] = best;
    reduced[mine] = 0;
    rates.sizes[mine] = bits & kFired ? owned.end - owned.begin : 0;
  }
  if (__syncthreads_or(bits & kFired)) {
    const bool fired = bits & kFired;
    const std::int64_t step = fired ? lanes.steps(lane) + 1 : 0;  // on its way while rates are cut
    rates.line_up(range.count, mine, owned.begin);
    rates.share(range.count, [&](int owner, std::int64_t group) {
      if (cut_group(lanes, range.begin + owner, group).lowered()) atomicOr(&reduced[owner], 1);
    });
    __syncthreads();
    if (fired) bits |= end_fire(lanes, lane, step, reduced[mine], clock);
  }
  if (mine < range.count) {
    lanes.state.clock[lane] = clock;
    lanes.state.outcome[lane] = static_cast<std::uint8_t>(bits);
  }
  count_steps(lanes, range.begin, range.begin + range.count, 1);
}

/// The same with optional parts or a mask, with the two halves of lane.hpp.
template <class T>
__global__ void __launch_bounds__(kGroupThreads)
    step_grouped_parts(const Lanes lanes, const Metrics metrics, const std::uint8_t* active,
                       const int per_block) {
  __shared__ SharedRates rates;
  __shared__ double values[kLanesPerBlock];
  __shared__ int asked[kLanesPerBlock];
  __shared__ int done[kLanesPerBlock];
  const Range range = range_of(lanes, per_block);
  const int mine = static_cast<int>(threadIdx.x);
  const std::int64_t lane = range.begin + mine;
  std::int64_t step = 0;
  int ask = 0;
  Owned owned;
  if (mine < range.count) {
    owned = owned_by(lanes, lane);
    const Seen<T> seen = seen_of<T>(lanes, lane);
    step = lanes.age(lane) + 1;
    const bool here = !active || active[lane];
    double metric = metric_at<double>(metrics, lane);  // last: conversions wait for it
    Told told;
    if (here) {
      ask = begin_step(lanes, lane, seen, step, metric, told);
    } else {
      pass_by(lanes, lane);
    }
    values[mine] = metric;
    asked[mine] = ask;
    done[mine] = 0;
    rates.sizes[mine] = ask & kAskRates ? owned.end - owned.begin : 0;
  }
  if (__syncthreads_or(ask & kAskRates)) {
    rates.line_up(range.count, mine, owned.begin);
    rates.share(range.count, [&](int owner, std::int64_t group) {
      const std::int64_t its = range.begin + owner;
      const int bits =
          step_group<T>(lanes, its, group, lanes.age(its) + 1, asked[owner], values[owner]);
      if (bits) atomicOr(&done[owner], bits);
    });
    __syncthreads();
  }
  if (mine < range.count) {
    lanes.state.outcome[lane] =
        static_cast<std::uint8_t>(end_step(lanes, lane, step, ask, done[mine]));
  }
  count_steps(lanes, range.begin, range.begin + range.count, 1);
}

}  // namespace plateau
