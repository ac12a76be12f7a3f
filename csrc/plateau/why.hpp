// SPDX-License-Identifier: BSD-3-Clause
// Why a step did what it did: what a lane says of it where it is asked.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"

namespace plateau {

/// Why a step of a lane did what it did.
enum Reason : std::uint8_t {
  kPassed,      ///< the lane was finished before
  kSkipped,     ///< NaN: no step
  kFroze,       ///< NaN: the lane is finished
  kCollecting,  ///< values are being accumulated
  kWarming,     ///< a warm-up: nothing but best counts
  kCooling,     ///< a cooldown: nothing but best counts
  kBetter,
  kBad,
  kCutByNan,  ///< NaN: cut now
  kDiverged,  ///< past `diverge_at`: the lane is finished, and nothing else counts
  kAbove,     ///< the band: cut
  kBelow,     ///< the band: raise
  kWithin,    ///< the band
  kGood,      ///< better, by a rule that raises the rates after enough such steps
  kAnew,      ///< at its floor too often: the lane begins anew
};
constexpr const char* kReasons =
    "passed skipped froze collecting warming cooling better bad nan diverged above below within "
    "good anew";

/// Bits beside the reason.
enum Also : std::uint8_t {
  kReasonBits = 15,
  kAlsoFinished = 16,  ///< the lane is finished by this step
  kAlsoFirst = 32,     ///< `initial_patience` is what bears
  kAlsoGain = 64,      ///< better than best, but not by enough
};

/// What a step says of itself where it is asked.
struct Told {
  std::uint8_t why = kPassed;  ///< Reason and Also bits
  double gate = 0;             ///< what the value had to beat
  /// How far of how much: values collected, steps of the warm-up, of the cooldown that are left,
  /// bad or good steps of those borne by the patience in force, or cuts due at the floor.
  std::int32_t count = 0, limit = 0;

  PLATEAU_HD void say(int reason, std::int64_t how_far = 0, std::int32_t of = 0) noexcept {
    why = static_cast<std::uint8_t>(reason);
    count = static_cast<std::int32_t>(how_far);
    limit = of;
  }
};

}  // namespace plateau
