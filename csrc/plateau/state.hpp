// SPDX-License-Identifier: BSD-3-Clause
// THE TABLE OF STATE: what lanes remember from step to step, each field declared in the list below
// and nowhere else; Python allocates, moves, saves and checks by it.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "plateau/config.hpp"
#include "plateau/settings.hpp"

namespace plateau {

/// float or double, as the lanes were built: their dtype.
struct Best {};

template <class T>
using Pointer = std::conditional_t<std::is_same_v<T, Best>, void*, T*>;

/// Bits of a lane's one-byte outcome of the last step.
enum Outcome : std::uint8_t {
  kImproved = 1,  ///< the metric beat the gate and became `best`
  kReduced = 2,   ///< at least one of the lane's rates was lowered
  kFired = 4,     ///< a cut or a raise was due, whether or not a rate could be moved
  kRaised = 8,    ///< at least one of the lane's rates was raised
};

/// Bits of a lane's flags.
enum Flag : std::uint8_t {
  kFinished = 1,   ///< steps pass the lane by
  kOnceFired = 2,  ///< the first cut was due: `initial_patience` is over
  kAtMin = 4,      ///< no rate of the lane can be lowered any more, as of the last cut
};
/// What finished a lane; in the order in which a step asks, and the first that holds stays.
enum StopReason : std::uint8_t {
  kGoesOn,
  kByNan,            ///< `nan` is freeze
  kByDivergence,     ///< `diverge_at`, but for a bound that is passed where the target is too
  kByTarget,         ///< `stop_at`
  kByPatience,       ///< `stop_patience`
  kAtFloor,          ///< `patience_at_min`
  kByMaxReductions,  ///< `max_reductions`
  kByMaxSteps,       ///< `max_steps`
  kPruned,           ///< from outside
};
constexpr const char* kStopReasons =
    "none nan diverged target patience floor max_reductions max_steps pruned";
constexpr Domain kStops{0, kPruned, "a code from 0 to 8"};
constexpr Domain kFlags{0, 7, "flags from 0 to 7"};
constexpr Domain kOutcomes{0, 15, "bits from 0 to 15"};
constexpr Domain kClocks{-kMost, kMost, "an integer from -2147483646 to 2147483646"};
// Half of what fits, so that steps can count on for longer than any run.
constexpr Domain kTallies{0, 0x1p30, "an integer from 0 to 1073741824"};
constexpr Domain kHeld{0, std::numeric_limits<float>::max(),
                       "finite, not negative and at most 3.4e38, as float32 is"};
constexpr Domain kAnything{kInfinity, -kInfinity, "anything"};  // NaN too
constexpr Domain kNoises{-1, 1, "above -1 and below 1", true, true};
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr Domain kAges{-0x1p53, 0x1p53, "an integer", true, true};

// name, type, of what there is one, first value, domain, and what lanes have it: all (`always`),
// those with any optional part (`parts`), with recorded events (`events`), or with that setting.
//
// A lane's age, the steps that it took, is num_steps - born: steps that pass a lane by are added to
// `born`, so those that do not cost nothing. They are added to `last_cut` too, the number of the
// step that last lowered a rate, so the lane's own number of it is last_cut - born: 0 if there was
// none, as both begin alike. Its best begins as the worst there is of its mode, that of
// stop_patience as NaN: it is none yet.
#define PLATEAU_STATE(X)                                            \
  X(best, Best, kLane, 0, kNumbers, always)                         \
  X(clock, std::int32_t, kLane, 0, kClocks, always)                 \
  X(outcome, std::uint8_t, kLane, 0, kOutcomes, always)             \
  X(num_steps, std::int64_t, kCount, 0, kSteps, always)             \
  X(rate, double, kGroup, 0, kHeld, always)                         \
  X(published, float, kGroup, 0, kHeld, always)                     \
  X(num_reductions, std::int32_t, kLane, 0, kTallies, always)       \
  X(last_cut, std::int64_t, kLane, 0, kAges, always)                \
  X(born, std::int64_t, kLane, 0, kAges, always)                    \
  X(start_rate, double, kGroup, 0, kHeld, always)                   \
  X(flags, std::uint8_t, kLane, 0, kFlags, parts)                   \
  X(stop_reason, std::uint8_t, kLane, 0, kStops, parts)             \
  X(best_step, std::int64_t, kLane, 0, kSteps, parts)               \
  X(at_min_steps, std::int32_t, kLane, 0, kCounts, patience_at_min) \
  X(stop_best, double, kLane, kNone, kAnything, stop_patience)      \
  X(stop_best_at, std::int64_t, kLane, 0, kSteps, stop_patience)    \
  X(judged, std::int64_t, kLane, 0, kSteps, stop_patience)          \
  X(total, double, kLane, 0, kAnything, accumulate)                 \
  X(taken, std::int32_t, kLane, 0, kCounts, accumulate)             \
  X(pushed, std::int64_t, kLane, 0, kSteps, window)                 \
  X(recent, double, kWindow, 0, kNumbers, window)                   \
  X(smooth, double, kLane, 0, kFinite, smoothing)                   \
  X(smooth_rest, double, kLane, 1, kUnit, smoothing)                \
  X(events_written, std::int64_t, kBatch, 0, kSteps, events)        \
  X(events_first, std::int64_t, kBatch, 0, kSteps, events)          \
  X(events_lane, std::int64_t, kEvent, 0, kSteps, events)           \
  X(events_group, std::int64_t, kEvent, 0, kSteps, events)          \
  X(events_step, std::int64_t, kEvent, 0, kSteps, events)           \
  X(events_old_rate, double, kEvent, 0, kAnything, events)          \
  X(events_new_rate, double, kEvent, 0, kAnything, events)          \
  X(events_metric, double, kEvent, 0, kAnything, events)            \
  X(events_best, double, kEvent, 0, kAnything, events)              \
  X(num_increases, std::int32_t, kLane, 0, kTallies, rule)          \
  X(good_steps, std::int32_t, kLane, 0, kTallies, rule)             \
  X(floor_cuts, std::int32_t, kLane, 0, kTallies, rule)             \
  X(recent_sum, double, kLane, 0, kAnything, rule)                  \
  X(noise, double, kLane, 0, kNoises, noise_from)

/// Pointers to the fields; null for those that these lanes do not have. Nothing here is owned.
struct State {
#define PLATEAU_FIELD(name, type, of, first, domain, who) Pointer<type> name = nullptr;
  PLATEAU_STATE(PLATEAU_FIELD)
#undef PLATEAU_FIELD
};

}  // namespace plateau
