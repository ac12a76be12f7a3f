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

enum Rule : std::uint8_t { kPlateau, kBand, kGreedy };
constexpr const char* kRules = "plateau band greedy";

enum NoiseType : std::uint8_t { kNormal, kUniform };
constexpr const char* kNoiseTypes = "normal uniform";

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
constexpr Domain kMultiples{1, kInfinity, "finite and at least 1", false, true};
constexpr Domain kPositive{0, kInfinity, "finite and above 0", true, true};
constexpr Domain kAboveOne{1, kInfinity, "finite and above 1", true, true};
constexpr double kMostRate = std::numeric_limits<float>::max();  // float32, as rates are published
constexpr Domain kCeilings{0, kMostRate, "not negative and below 3.4e38", false, true};

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
    "A lane is neither cut nor finished by stop_patience before it has taken so many steps.")      \
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
  X(stop_patience, std::int32_t, kLane, kNoLimit, kCounts, kAnyOther,                              \
    "A lane is finished by so many bad steps in a row (0 as 1), by a gate and a best of their "    \
    "own, in a cooldown too.")                                                                     \
  X(stop_threshold, double, kLane, 0.0, kFinite, kNever,                                           \
    "How much better than the best of stop_patience a metric must be to count there.")             \
  X(stop_threshold_mode, std::uint8_t, kLane, kAbs, kThresholdModes, kNever,                       \
    "What stop_threshold is a share of, as threshold_mode has it.")                                \
  X(stop_mult, double, kLane, 1.0, kMultiples, kNever,                                             \
    "With it stop_patience bears more after a late best: the lane is finished by a bad step "      \
    "after which step + 1 > stop_mult * step of the best + stop_patience.")                        \
  X(max_steps, std::int32_t, kLane, kNoLimit, kSome, kAnyOther,                                    \
    "A lane is finished when it has taken so many steps.")                                         \
  X(stop_at, double, kLane, kInfinity, kFinite, kAnyOther,                                         \
    "A lane is finished by a metric that is better than this target.")                             \
  X(diverge_at, double, kLane, kInfinity, kFinite, kAnyOther,                                      \
    "A lane is finished by a metric that is worse than this or infinite, and by NaN where nan is " \
    "bad; such a metric counts for nothing else.")                                                 \
  X(warmup_steps, std::int32_t, kLane, 0, kCounts, kAnyOther,                                      \
    "Steps in which the rate rises in a straight line; metrics count for best alone meanwhile.")   \
  X(warmup_start_factor, double, kLane, 0.0, kUnit, kNever,                                        \
    "What a warm-up begins with, as a share of the rate.")                                         \
  X(rule, std::uint8_t, kBatch, kPlateau, kRules, kAnyOther & ~(1U << kPlateau),                   \
    "What moves the rates of all lanes: a plateau lowers them, band steers the metric to a "       \
    "target, "                                                                                     \
    "greedy raises them too, where the metric goes on improving.")                                 \
  X(max_lr, double, kGroup, kMostRate, kCeilings, kNever, "Ceiling of a rate that may rise.")      \
  X(target, double, kLane, kInfinity, kPositive, kNever,                                           \
    "What band, which needs it, steers the metric to.")                                            \
  X(width, double, kLane, 2.0, kMultiples, kNever,                                                 \
    "With band a metric above width * target lowers the rate, and one below target / width, but "  \
    "above 0, raises it.")                                                                         \
  X(growth, double, kLane, 1.5, kAboveOne, kNever,                                                 \
    "What band divides or multiplies the rate by; factor, eps, patience and cooldown are not for " \
    "it.")                                                                                         \
  X(raise_cooldown, std::int32_t, kLane, 0, kCounts, kNever,                                       \
    "With greedy, steps after a raise in which nothing counts.")                                   \
  X(reset_at_min, std::int32_t, kLane, kNoLimit, kSome, kNever,                                    \
    "With greedy, so many cuts due with all rates at min_lr begin the lane anew.")                 \
  X(noise_from, std::int32_t, kLane, kNoLimit, kCounts, kAnyOther,                                 \
    "The step from which on the published rate is noisy: rate + rate * noise, the same for all "   \
    "rates of the lane, and undone before the next step decides.")                                 \
  X(noise_until, std::int32_t, kLane, kNoLimit, kCounts, kNever,                                   \
    "The step from which on it is not any more.")                                                  \
  X(noise_pct, double, kLane, 0.67, kInside, kNever, "Bound of the noise, a share of the rate.")   \
  X(noise_type, std::uint8_t, kLane, kNormal, kNoiseTypes, kNever,                                 \
    "Noise is standard normal, drawn anew where it passes noise_pct, or uniform up to there.")     \
  X(noise_seed, std::int32_t, kLane, 42, kCounts, kNever,                                          \
    "What noise follows from, besides the lane's step; lanes of one seed have the same noise.")

struct Settings {
#define PLATEAU_FIELD(name, type, of, off, domain, part, help) \
  Setting<type> name{nullptr, static_cast<type>(off)};
  PLATEAU_SETTINGS(PLATEAU_FIELD)
#undef PLATEAU_FIELD
};

}  // namespace plateau
