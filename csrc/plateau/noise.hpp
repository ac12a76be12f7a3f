// SPDX-License-Identifier: BSD-3-Clause
// NOISE ON THE RATE, as timm has it: a share of the rate by which the published one differs until
// the next step. timm seeds a generator of torch for each epoch; here a number of the step and the
// lane's seed are hashed, so that nothing but the step is remembered, and every device draws the
// same bits. Only sums, products and one division of float64 are used, for the same reason.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/settings.hpp"

namespace plateau {

/// Number `i`, from 1, of the stream `seed` of SplitMix64 (Steele, Lea and Flood 2014).
PLATEAU_HD inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t i) noexcept {
  std::uint64_t bits = seed + i * 0x9E3779B97F4A7C15U;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9U;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBU;
  return bits ^ (bits >> 31);
}

/// The same as a number from 0 to below 1.
PLATEAU_HD inline double random_unit(std::uint64_t seed, std::uint64_t i) noexcept {
  return static_cast<double>(random_bits(seed, i) >> 11) * 0x1p-53;
}

/// exp(-x * x / 2) for x from -1 to 1, to the last bits: Taylor's series, for libraries differ.
PLATEAU_HD inline double bell(double x) noexcept {
  const double y = x * x * -0.5;
  double sum = 1.0, term = 1.0;
  for (int k = 1; k <= 16; ++k) {
    term = term * y / static_cast<double>(k);
    sum += term;
  }
  return sum;
}

/// The noise of a step of a lane, a number from -share to share. Normal noise is drawn anew until
/// it is within these: that is, uniform noise of which as much is kept as the bell says, at least
/// three fifths.
PLATEAU_HD inline double noise_of(std::uint8_t type, double share, std::int32_t seed,
                                  std::int64_t step) noexcept {
  const std::uint64_t stream =
      random_bits(static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(step));
  double noise = 0.0;
  for (std::uint64_t i = 1; i < 128; i += 2) {  // 64 refusals in a row are not seen in any life
    noise = 2.0 * (random_unit(stream, i) - 0.5) * share;
    if (type == kUniform || random_unit(stream, i + 1) < bell(noise)) break;
  }
  return noise;
}

}  // namespace plateau
