// SPDX-License-Identifier: BSD-3-Clause
// Parameters as they lie in memory, to and from the type that they are computed in. By integer
// arithmetic without branches, so that the host's loops become vectors and all devices agree.
#pragma once

#include <cstdint>
#include <type_traits>

#include "plateau/config.hpp"
#include "plateau/metric.hpp"

namespace plateau {

/// What a parameter of type P is computed in, and its optimizer's state kept in.
template <class P>
using Wide = std::conditional_t<std::is_same_v<P, double>, double, float>;

template <class P>
PLATEAU_HD inline P widen(P value) noexcept {
  return value;
}
PLATEAU_HD inline float widen(BFloat from) noexcept { return value(from); }
PLATEAU_HD inline float widen(Half from) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(from.bits & 0x8000U) << 16;
  const std::uint32_t rest = from.bits & 0x7FFFU;
  const std::uint32_t bias = rest >= 0x7C00U ? 224U << 23 : 112U << 23;  // infinity and NaN
  const std::uint32_t normal = (rest << 13) + bias;
  const auto small = bit_cast<std::uint32_t>(static_cast<float>(static_cast<int>(rest)) * 0x1p-24F);
  return bit_cast<float>(sign | (rest < 0x0400U ? small : normal));
}

/// To the nearest, of two the even one.
template <class P>
PLATEAU_HD inline P narrow(Wide<P> value) noexcept {
  const auto bits =
      bit_cast<std::conditional_t<sizeof(P) == 8, std::uint64_t, std::uint32_t>>(value);
  if constexpr (std::is_same_v<P, BFloat>) {
    const std::uint32_t rounded = (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
    return {static_cast<std::uint16_t>(value != value ? 0x7FC0U : rounded)};
  } else if constexpr (std::is_same_v<P, Half>) {
    const std::uint32_t size = bits & 0x7FFFFFFFU;
    const std::uint32_t normal = (size - (112U << 23) + 0x0FFFU + (size >> 13 & 1U)) >> 13;
    // adding 1/2 leaves multiples of 2^-24, the smallest that there is
    const std::uint32_t small = bit_cast<std::uint32_t>(bit_cast<float>(size) + 0.5F) - 0x3F000000U;
    const std::uint32_t finite = size < 0x38800000U ? small : normal;
    const std::uint32_t large = size > 0x7F800000U ? 0x7E00U : 0x7C00U;
    return {
        static_cast<std::uint16_t>((size < 0x47800000U ? finite : large) | (bits >> 16 & 0x8000U))};
  } else {
    return value;
  }
}

}  // namespace plateau
