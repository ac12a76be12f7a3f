// SPDX-License-Identifier: BSD-3-Clause
// THE TABLE OF SETTINGS: each is declared in the list below and nowhere else. From it come the
// struct that the rule reads, what Python takes and checks, the keywords that editors complete, the
// axes of sweeps, the options of the command line and the table in docs/settings.md (`nox -s stubs`
// writes what is generated).
#pragma once

#include <cstdint>
#include <limits>

#include "plateau/config.hpp"

namespace plateau {

/// A setting: one value for all lanes, or one per lane (or group) where `each` is set.
template <class T>
struct Setting {
  const T* each = nullptr;
  T all{};

  PLATEAU_HD T operator[](std::int64_t i) const noexcept { return each ? each[i] : all; }
};

// Words, in the order of their codes.
enum Mode : std::uint8_t { kMin, kMax };
constexpr const char* kModes = "min max";

enum ThresholdMode : std::uint8_t { kRel, kAbs, kRelSafe };
constexpr const char* kThresholdModes = "rel abs rel_safe";

enum OnNan : std::uint8_t { kNanBad, kNanSkip, kNanCut, kNanFreeze };
constexpr const char* kOnNans = "bad skip cut freeze";

enum Counting : std::uint8_t { kTorch, kKeras, kOptax };
constexpr const char* kCountings = "torch keras optax";

/// The numbers that a setting or a field of the state may hold, as errors call them. Of integers
/// whole ones only.
struct Domain {
  double low;
  double high;
  const char* expected;
  bool open_low = false;
  bool open_high = false;
};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kMost = 2147483646;  // not INT32_MAX: the clock must be able to go one past it
constexpr Domain kRates{0, kInfinity, "finite and not negative", false, true};
constexpr Domain kInside{0, 1, "above 0 and below 1", true, true};
constexpr Domain kFinite{-kInfinity, kInfinity, "finite", true, true};
constexpr Domain kShares{0, 1, "at least 0 and below 1", false, true};
constexpr Domain kUnit{0, 1, "from 0 to 1"};
constexpr Domain kNumbers{-kInfinity, kInfinity, "a number"};
constexpr Domain kCounts{0, kMost, "an integer from 0 to 2147483646"};
constexpr Domain kSome{1, kMost, "an integer from 1 to 2147483646"};
constexpr Domain kSteps{0, 0x1p53, "an integer of 0 or more", false, true};

enum class Of : std::uint8_t { kLane, kGroup, kCount, kBatch, kWindow, kEvent };

// Which values of a setting take lanes out of the plain loop: none, all but the one that it has
// unless told, or the words with these codes.
constexpr unsigned kNever = 0, kAnyOther = ~0U;

constexpr std::int32_t kAsPatience = -1;
constexpr std::int32_t kNoLimit = std::numeric_limits<std::int32_t>::max();

// name, type (a word's is std::uint8_t), of what there is one, what it is unless told (to users
// None where it lies outside its domain), words or domain, which values need optional parts, help.
#define PLATEAU_SETTINGS(X)                                                                        \
  X(mode, std::uint8_t, kLane, kMin, kModes, kNever,                                               \
    "Whether lower (min) or higher (max) metrics are better.")                                     \
  X(factor, double, kLane, 0.1, kInside, kNever, "What a cut multiplies the rate by.")             \
  X(patience, std::int32_t, kLane, 10, kCounts, kNever,                                            \
    "Bad steps in a row that are borne; the next one cuts.")                                       \
  X(threshold, double, kLane, 1e-4, kFinite, kNever, "How much better a metric must be to count.") \
  X(threshold_mode, std::uint8_t, kLane, kRel, kThresholdModes, 1U << kRelSafe,                    \
    "What the threshold is a share of: best (rel), nothing (abs), or the size of best (rel_safe: " \
    "right for negative metrics, where rel is not).")                                              \
  X(cooldown, std::int32_t, kLane, 0, kCounts, kNever,                                             \
    "Steps after a cut in which nothing counts as bad.")                                           \
  X(min_lr, double, kGroup, 0.0, kRates, kNever, "Floor of the rate.")                             \
  X(eps, double, kLane, 1e-8, kRates, kNever,                                                      \
    "A rate is left alone if it would change by this or less.")                                    \
  X(atol, double, kLane, 0.0, kRates, kNever,                                                      \
    "How much better a metric must be besides the threshold.")                                     \
  X(nan, std::uint8_t, kLane, kNanBad, kOnNans, kAnyOther & ~(1U << kNanBad),                      \
    "What NaN does: a bad step (torch's rule), no step (skip), a cut, or the lane is finished "    \
    "(freeze).")                                                                                   \
  X(counting, std::uint8_t, kLane, kTorch, kCountings, 1U << kKeras,                               \
    "Whose bad steps: keras and optax cut one earlier than torch; Keras counts the step on which " \
    "a cooldown ends, and starts none where no rate was lowered.")                                 \
  X(initial_patience, std::int32_t, kLane, kAsPatience, kCounts, kAnyOther,                        \
    "The patience until the first cut is due.")                                                    \
  X(min_steps, std::int32_t, kLane, 0, kCounts, kAnyOther,                                         \
    "A lane is not cut before it has taken so many steps.")                                        \
  X(smoothing, double, kLane, 0.0, kShares, kAnyOther,                                             \
    "Decide by an exponential average that keeps this share of itself, corrected for its start.")  \
  X(accumulate, std::int32_t, kLane, 1, kSome, kAnyOther,                                          \
    "Decide once in so many steps, by the mean of their metrics.")                                 \
  X(window, std::int32_t, kLane, 1, kSome, kAnyOther,                                              \
    "Decide by the mean of the last so many metrics.")                                             \
  X(max_reductions, std::int32_t, kLane, kNoLimit, kSome, kAnyOther,                               \
    "A lane is finished when its rates were lowered so often.")                                    \
  X(patience_at_min, std::int32_t, kLane, kNoLimit, kSome, kAnyOther,                              \
    "A lane is finished after so many bad steps in a row in which no rate of it could be "         \
    "lowered.")                                                                                    \
  X(warmup_steps, std::int32_t, kLane, 0, kCounts, kAnyOther,                                      \
    "Steps in which the rate rises in a straight line; metrics count for best alone meanwhile.")   \
  X(warmup_start_factor, double, kLane, 0.0, kUnit, kNever,                                        \
    "What a warm-up begins with, as a share of the rate.")

struct Settings {
#define PLATEAU_FIELD(name, type, of, off, domain, part, help) \
  Setting<type> name{nullptr, static_cast<type>(off)};
  PLATEAU_SETTINGS(PLATEAU_FIELD)
#undef PLATEAU_FIELD
};

}  // namespace plateau
