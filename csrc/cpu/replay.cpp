// SPDX-License-Identifier: BSD-3-Clause
// The host's time loop. A tile of lanes is copied into a block of memory that stays in the
// first-level cache, with its settings spread out, and taken through all epochs there, in vector
// passes over elements of one width. Only what a tile records goes to memory meanwhile.
#include "plateau/replay.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <optional>
#include <thread>

#include "cpu/block.hpp"
#include "cpu/parts.hpp"
#include "cpu/shared_filters.hpp"
#include "cpu/threads.hpp"
#include "cpu/vector.hpp"
#include "plateau/fire.hpp"
#include "plateau/replay_lane.hpp"
#include "plateau/rule.hpp"

namespace plateau {
namespace {

constexpr int kTile = 256;               // lanes that are taken through all epochs together
constexpr std::int64_t kWork = 1 << 17;  // lane-epochs that are worth a thread

/// Calls `body(begin, count)` for every tile of n lanes, on several threads; for no more of them
/// once `goes_on` says so.
template <class Body>
void for_tiles(std::int64_t n, std::int64_t epochs, int threads,
               const std::function<bool()>& goes_on, const Body& body) {
  const std::int64_t tiles = (n + kTile - 1) / kTile;
  const std::int64_t worth = std::min(tiles, n * epochs / kWork + 1);
  std::atomic<bool> stopped{false};
  const auto caller = std::this_thread::get_id();
  const auto take = [&](std::int64_t tile) {
    const bool asks = goes_on && std::this_thread::get_id() == caller;
    if (stopped || (asks && (stopped = !goes_on()))) return;
    const std::int64_t begin = tile * kTile;
    body(begin, static_cast<int>(std::min<std::int64_t>(kTile, n - begin)));
  };
  const auto used = static_cast<int>(std::min<std::int64_t>(threads, worth));
  try {
    Shares shares(tiles, used);
    on_threads(used, [&](int share) { shares.take(share, take); });
  } catch (const std::bad_alloc&) {  // before the first tile
    for (std::int64_t tile = 0; tile < tiles; ++tile) take(tile);
  }
}

constexpr std::int32_t kBearsAll = std::numeric_limits<std::int32_t>::max();
constexpr int kScan = 8;  // lanes that are passed over together where none of them is cut

/// What is touched in every epoch of some lanes and their settings, one array a field. Lanes past
/// `count` never fire. Rates stay in memory: cuts are few.
template <class T>
struct Tile {
  std::int64_t begin;
  int count;
  alignas(64) T best[kTile];
  alignas(64) double bar[kTile];
  alignas(64) double scale[kTile];
  alignas(64) double shift[kTile];
  alignas(64) std::int32_t maximize[kTile];
  alignas(64) std::int32_t clock[kTile];
  alignas(64) std::int32_t borne[kTile];
  alignas(64) std::int32_t cooldown[kTile];
  alignas(64) std::int32_t marks[kTile];  // Outcome bits, as wide as the clock
  alignas(64) std::int32_t room[kTile];   // kReduced, or 0 once a cut was in vain: so will all be
  alignas(64) std::int32_t improved[kTile];
  Tally tallies[kTile];

  Tile(const Lanes& lanes, std::int64_t first, int size) : begin(first), count(size) {
    const Settings& settings = lanes.settings;
    for (int i = 0; i < kTile; ++i) {
      const std::int64_t lane = begin + std::min(i, count - 1);
      const Gate gate = lanes.gate_at(lane);
      best[i] = static_cast<const T*>(lanes.state.best)[lane];
      scale[i] = gate.scale;
      shift[i] = gate.shift;
      maximize[i] = gate.maximize;
      clock[i] = i < count ? lanes.state.clock[lane] : 0;
      borne[i] =
          i < count ? plateau::borne(settings.patience[lane], settings.counting[lane]) : kBearsAll;
      cooldown[i] = settings.cooldown[lane];
      room[i] = kReduced;
      marks[i] = improved[i] = 0;
    }
    raise_bars();
  }

  PLATEAU_INLINE void raise_bars() {
    for (int i = 0; i < kTile; ++i) {
      bar[i] = bar_of(static_cast<double>(best[i]), {scale[i], shift[i], false});
    }
  }

  void store(const Lanes& lanes, const Record& record, std::int64_t epochs) {
    for (int i = 0; i < count; ++i) {
      const std::int64_t lane = begin + i;
      static_cast<T*>(lanes.state.best)[lane] = best[i];
      lanes.state.clock[lane] = clock[i];
      lanes.state.outcome[lane] = static_cast<std::uint8_t>(marks[i]);
      tallies[i].improved = improved[i];
      tallies[i].store(record, lane, epochs);
    }
  }
};

/// The first half of a step: best and improved. `metric_of(i)` is lane i's metric, `maximize_of(i)`
/// its mode.
template <class T, class MetricOf, class MaximizeOf>
PLATEAU_INLINE void compare(Tile<T>& tile, MetricOf metric_of, MaximizeOf maximize_of) {
  std::int32_t any = 0;
  for (int i = 0; i < kTile; ++i) {
    const std::int32_t mark = beats(static_cast<double>(metric_of(i)), tile.bar[i], maximize_of(i));
    tile.marks[i] = mark;
    any |= mark;
  }
  if (!any) return;
  for (int i = 0; i < kTile; ++i) {
    tile.best[i] = tile.marks[i] ? static_cast<T>(metric_of(i)) : tile.best[i];
  }
  for (int i = 0; i < kTile; ++i) tile.improved[i] += tile.marks[i];
  tile.raise_bars();
}

/// The second half: the clock, which is set back where the lane fires. Returns whether any rate may
/// have to be lowered; marks say whose.
template <class T>
PLATEAU_INLINE bool advance(Tile<T>& tile) {
  std::int32_t any = 0;
  for (int i = 0; i < kTile; ++i) {
    const std::int32_t next = tick(tile.clock[i], tile.marks[i] != 0);
    const std::int32_t fired = -fires(next, tile.borne[i]);  // all bits or none
    const std::int32_t set_back = after_fire(next, tile.cooldown[i], true, kTorch);
    tile.clock[i] = (set_back & fired) | (next & ~fired);
    tile.marks[i] |= (tile.room[i] | kFired) & fired;
    any |= tile.room[i] & fired;
  }
  return any != 0;
}

template <class T>
PLATEAU_INLINE void cut_marked(const Lanes& lanes, Tile<T>& tile, std::int32_t step) {
  alignas(8) std::uint8_t due[kTile];
  int found[kTile + 1];  // written without a branch, which nobody could predict
  int count = 0;
  for (int i = 0; i < kTile; ++i) {
    due[i] = static_cast<std::uint8_t>((tile.marks[i] & kReduced) / kReduced);
  }
  for (int from = 0; from < kTile; from += kScan) {
    std::uint64_t any = 0;
    std::memcpy(&any, due + from, sizeof any);
    if (!any) continue;
    for (int i = from; i < from + kScan; ++i) {
      found[count] = i;
      count += due[i];
    }
  }
  for (int k = 0; k < count; ++k) {
    const int i = found[k];
    const std::int64_t lane = tile.begin + i;
    const int bits =
        end_fire(lanes, lane, lanes.steps(lane) + step, cut_lane(lanes, lane), tile.clock[i]);
    tile.room[i] = bits & kReduced;
    tile.marks[i] = (tile.marks[i] & ~kReduced) | bits;
    if (bits & kReduced) tile.tallies[i].cut(step, tile.improved[i]);
  }
}

template <class T, class MetricOf>
void write_row(const Lanes& lanes, const Tile<T>& tile, const Record& record, std::int64_t epoch,
               MetricOf metric_of) {
  for (int i = 0; i < tile.count; ++i) {
    write_entry(lanes, record, tile.begin + i, epoch, tile.marks[i], tile.best[i], tile.clock[i],
                static_cast<double>(metric_of(i)));
  }
}

template <class T, class MetricOf>
PLATEAU_INLINE void step_tile(const Lanes& lanes, Tile<T>& tile, const Record& record,
                              std::int64_t epoch, MetricOf metric_of) {
  const Setting<std::uint8_t>& mode = lanes.settings.mode;
  if (mode.each) {
    compare(tile, metric_of, [&tile](int i) { return tile.maximize[i] != 0; });
  } else if (mode.all == kMax) {
    compare(tile, metric_of, [](int) { return true; });
  } else {
    compare(tile, metric_of, [](int) { return false; });
  }
  if (advance(tile)) cut_marked(lanes, tile, static_cast<std::int32_t>(epoch + 1));
  if (record.has_rows()) write_row(lanes, tile, record, epoch, metric_of);
}

template <class T>
PLATEAU_INLINE void replay_shared(const Lanes& lanes, const History& history, const Record& record,
                                  std::int64_t begin, int count) {
  Tile<T> tile(lanes, begin, count);
  for (std::int64_t epoch = 0; epoch < history.epochs; ++epoch) {
    const T metric = metric_at<T>(history.at(epoch), 0);
    step_tile(lanes, tile, record, epoch, [metric](int) { return metric; });
  }
  tile.store(lanes, record, history.epochs);
}

template <class T>
PLATEAU_INLINE void replay_each(const Lanes& lanes, const History& history, const Record& record,
                                std::int64_t begin, int count) {
  Tile<T> tile(lanes, begin, count);
  alignas(64) T metrics[kTile] = {};
  for (std::int64_t epoch = 0; epoch < history.epochs; ++epoch) {
    gather(history.at(epoch), begin, count, metrics);
    step_tile(lanes, tile, record, epoch, [&metrics](int i) { return metrics[i]; });
  }
  tile.store(lanes, record, history.epochs);
}

#define PLATEAU_REPLAY(name, T, body)                                                              \
  PLATEAU_MULTIVERSION void name(const Lanes& lanes, const History& history, const Record& record, \
                                 std::int64_t begin, int count) {                                  \
    body<T>(lanes, history, record, begin, count);                                                 \
  }
PLATEAU_REPLAY(shared_f32, float, replay_shared)
PLATEAU_REPLAY(shared_f64, double, replay_shared)
PLATEAU_REPLAY(each_f32, float, replay_each)
PLATEAU_REPLAY(each_f64, double, replay_each)
#undef PLATEAU_REPLAY

void count_improved(const Flags& marks, int count, std::int32_t* __restrict improved) noexcept {
  for (int i = 0; i < count; ++i) improved[i] += marks[i] & kImproved;
}

/// Lanes with optional parts: the passes of a step, over a tile for all epochs.
template <class T>
void replay_blocks(const Lanes& lanes, const Parts& parts, const History& history,
                   const SharedFilters* shared, const Record& record, std::int64_t begin,
                   int count) {
  static_assert(kTile == kPart);
  Block block;
  block.begin = begin;
  block.count = count;
  block.alone_with_lanes = true;
  Tally tallies[kTile];
  alignas(64) std::int32_t improved[kTile] = {};
  for (std::int64_t epoch = 0; epoch < history.epochs; ++epoch) {
    Metrics metrics = history.at(epoch);
    if (shared) {
      shared->fill(epoch, begin, count, block.filtered);
      metrics.data = nullptr;
    }
    block.step = lanes.steps(begin) + epoch + 1;
    Stepped done;
    step_block(lanes, parts, metrics, nullptr, block, done);
    if (done.improved) count_improved(block.marks, count, improved);
    for (int i = 0; done.reduced > 0 && i < count; ++i) {
      if (block.marks[i] & kReduced) {
        tallies[i].cut(static_cast<std::int32_t>(epoch + 1), improved[i]);
      }
    }
    for (int i = 0; record.has_rows() && i < count; ++i) {
      const std::int64_t lane = begin + i;
      const double value =
          lanes.has_filters() ? block.filtered[i] : metric_at<double>(metrics, lane);
      write_entry(lanes, record, lane, epoch, block.marks[i],
                  static_cast<const T*>(lanes.state.best)[lane], lanes.state.clock[lane], value);
    }
  }
  for (int i = 0; i < count; ++i) {
    tallies[i].improved = improved[i];
    tallies[i].store(record, begin + i, history.epochs);
  }
}

/// Lanes whose rates may rise, or that are asked why: one by one.
template <class T>
void replay_lanes(const Lanes& lanes, const History& history, const Record& record,
                  std::int64_t begin, int count) {
  Tally tallies[kTile];
  for (std::int64_t epoch = 0; epoch < history.epochs; ++epoch) {
    for (int i = 0; i < count; ++i) {
      replay_step<T>(lanes, history, record, begin + i, epoch, tallies[i]);
    }
  }
  for (int i = 0; i < count; ++i) tallies[i].store(record, begin + i, history.epochs);
}

}  // namespace

void replay_cpu(const Lanes& lanes, const History& history, const Record& record, bool parts,
                int threads, const std::function<bool()>& goes_on) noexcept {
  if (lanes.n == 0 || history.epochs == 0) return;
  const bool narrow = lanes.best_dtype == Dtype::kFloat32;
  if (parts && has_passes(lanes) && !record.explains()) {
    std::optional<SharedFilters> filters;
    try {
      filters.emplace(lanes, history);
    } catch (const std::bad_alloc&) {  // then each lane has its own
    }
    const SharedFilters* shared = filters && filters->shared() ? &*filters : nullptr;
    Parts of_lanes(lanes);
    of_lanes.filters &= !shared;
    const auto body = narrow ? replay_blocks<float> : replay_blocks<double>;
    for_tiles(lanes.n, history.epochs, threads, goes_on, [&](std::int64_t begin, int count) {
      body(lanes, of_lanes, history, shared, record, begin, count);
    });
  } else {
    const bool same = history.first.stride == 0;
    auto body = same ? (narrow ? shared_f32 : shared_f64) : (narrow ? each_f32 : each_f64);
    if (parts || record.explains()) body = narrow ? replay_lanes<float> : replay_lanes<double>;
    for_tiles(lanes.n, history.epochs, threads, goes_on,
              [&](std::int64_t begin, int count) { body(lanes, history, record, begin, count); });
  }
  lanes.count_steps(history.epochs);
}

}  // namespace plateau
