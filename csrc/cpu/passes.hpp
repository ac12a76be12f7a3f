// SPDX-License-Identifier: BSD-3-Clause
// The passes that every step makes over a block of lanes, and what they are written in: who takes
// part and what each setting is, as functions of the lane's place in the block. What is one for all
// lanes is a number in a register then, and costs no memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plateau/lanes.hpp"
#include "plateau/rule.hpp"

namespace plateau {

constexpr int kBlock = 512;  // the most lanes that a loop takes together

/// All lanes of a block take part.
struct All {
  PLATEAU_INLINE constexpr std::int32_t operator()(int) const noexcept { return 1; }
};

/// A value that all lanes of a block share.
template <class S>
struct Same {
  S value;
  PLATEAU_INLINE S operator()(int) const noexcept { return value; }
};

/// A value that each lane of a block has: a setting, or 1 or 0 for who takes part.
template <class S>
struct Each {
  const S* values;
  PLATEAU_INLINE S operator()(int i) const noexcept { return values[i]; }
};

/// Calls `body` with what a setting is for the lanes from `begin` on.
template <class S, class Body>
PLATEAU_INLINE auto with(const Setting<S>& setting, std::int64_t begin, Body body) noexcept {
  return setting.each ? body(Each<S>{setting.each + begin}) : body(Same<S>{setting.all});
}

/// A setting as an array for the lanes of any block: its own, or its one value repeated. For loops
/// that read several settings of which any may be one per lane. Filled only where it is asked for.
template <class S, int kMost>
class Spread {
 public:
  void fill(const Setting<S>& setting, std::int64_t lanes) noexcept {
    each_ = setting.each;
    if (!each_) std::fill_n(same_, std::min<std::int64_t>(lanes, kMost), setting.all);
  }
  const S* at(std::int64_t begin) const noexcept { return each_ ? each_ + begin : same_; }

 private:
  const S* each_ = nullptr;
  alignas(64) S same_[kMost];
};

/// Calls `body` with the gate that all lanes share, its direction known where the loop is compiled.
/// `kSafe`: it may be safe.
template <bool kSafe, class Body>
PLATEAU_INLINE std::int32_t with_gate(const Gate& gate, Body body) noexcept {
  if (kSafe && gate.safe) return body(Same<Gate>{gate});
  if (gate.maximize) return body(Same<Gate>{{gate.scale, gate.shift, true, false}});
  return body(Same<Gate>{{gate.scale, gate.shift, false, false}});
}

/// The gates of a block's lanes, in the leanest way that there is for these settings.
class Gates {
 public:
  explicit Gates(const Lanes& lanes) noexcept {
    const Settings& given = lanes.settings;
    only_threshold_ = !given.mode.each && !given.threshold_mode.each && !given.atol.each &&
                      given.threshold_mode.all != kRelSafe;
    if (lanes.one_gate || only_threshold_) return;
    threshold_.fill(given.threshold, lanes.n);
    atol_.fill(given.atol, lanes.n);
    mode_.fill(given.mode, lanes.n);
    threshold_mode_.fill(given.threshold_mode, lanes.n);
  }

  /// Calls `body` with a function that tells lane i's gate. `kSafe`: some may be safe.
  template <bool kSafe, class Body>
  PLATEAU_INLINE std::int32_t with(const Lanes& lanes, std::int64_t begin,
                                   Body body) const noexcept {
    if (lanes.one_gate) return with_gate<kSafe>(lanes.gate, body);
    if (only_threshold_) {
      const double* __restrict threshold = lanes.settings.threshold.each + begin;
      const double atol = lanes.settings.atol.all;
      const bool relative = lanes.settings.threshold_mode.all == kRel;
      if (lanes.settings.mode.all == kMax) {
        if (relative) return body(OneGate<kMax, kRel>{threshold, atol});
        return body(OneGate<kMax, kAbs>{threshold, atol});
      }
      if (relative) return body(OneGate<kMin, kRel>{threshold, atol});
      return body(OneGate<kMin, kAbs>{threshold, atol});
    }
    return body(AnyGate<kSafe>{threshold_.at(begin), atol_.at(begin), mode_.at(begin),
                               threshold_mode_.at(begin)});
  }

 private:
  template <Mode kMode, ThresholdMode kThresholdMode>
  struct OneGate {
    const double* threshold;
    double atol;
    PLATEAU_INLINE Gate operator()(int i) const noexcept {
      Gate gate = gate_of(kMode, threshold[i], kThresholdMode, atol);
      gate.maximize = kMode == kMax;
      gate.safe = false;
      return gate;
    }
  };
  template <bool kSafe>
  struct AnyGate {
    const double* threshold;
    const double* atol;
    const std::uint8_t* mode;
    const std::uint8_t* threshold_mode;
    PLATEAU_INLINE Gate operator()(int i) const noexcept {
      Gate gate = gate_of(mode[i], threshold[i], threshold_mode[i], atol[i]);
      gate.safe &= kSafe;
      return gate;
    }
  };

  bool only_threshold_;
  Spread<double, kBlock> threshold_, atol_;
  Spread<std::uint8_t, kBlock> mode_, threshold_mode_;
};

/// marks[i] = whether lane i, which is here, improved. Returns whether any did.
template <class T, class Here, class GateOf>
PLATEAU_INLINE std::int32_t mark_improved(const T* __restrict metric, const T* __restrict best,
                                          int count, Here here, GateOf gate_of,
                                          std::int32_t* __restrict marks) noexcept {
  std::int32_t any = 0;
  for (int i = 0; i < count; ++i) {
    const std::int32_t mark = here(i) & improves(static_cast<double>(metric[i]),
                                                 static_cast<double>(best[i]), gate_of(i));
    marks[i] = mark;
    any |= mark;
  }
  return any;
}

/// clock = tick(clock), marks |= kFired where a lane that is here fires; until then they say who
/// improved. Returns whether any fires.
template <class Here, class TickOf, class BearsOf>
PLATEAU_INLINE std::int32_t advance(std::int32_t* __restrict clock, int count, Here here,
                                    TickOf tick_of, BearsOf bears_of,
                                    std::int32_t* __restrict marks) noexcept {
  std::int32_t any = 0;
  for (int i = 0; i < count; ++i) {
    const std::int32_t next = tick_of(i, clock[i], marks[i] != 0);
    const std::int32_t fired = fires(next, bears_of(i)) ? here(i) * kFired : 0;
    clock[i] = here(i) != 0 ? next : clock[i];
    marks[i] |= fired;
    any |= fired;
  }
  return any;
}

/// How torch and optax count, and Keras.
struct Tick {
  PLATEAU_INLINE std::int32_t operator()(int, std::int32_t clock, bool improved) const noexcept {
    return tick(clock, improved);
  }
};
struct KerasTick {
  PLATEAU_INLINE std::int32_t operator()(int, std::int32_t clock, bool improved) const noexcept {
    return tick_keras(clock, improved);
  }
};

}  // namespace plateau
