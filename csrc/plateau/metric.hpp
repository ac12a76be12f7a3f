// SPDX-License-Identifier: BSD-3-Clause
// Reading metrics of any dtype and stride as float or double, without rounding where that is
// possible.
#pragma once

#include <cstdint>
#include <cstring>

#include "plateau/config.hpp"
#include "plateau/types.hpp"

namespace plateau {

struct Half {
  std::uint16_t bits;
};
struct BFloat {
  std::uint16_t bits;
};
struct Bool {
  std::uint8_t byte;
};

template <class To, class From>
PLATEAU_HD To bit_cast(From from) noexcept {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

/// IEEE binary16, by integer arithmetic alone: right even where subnormal floats are flushed.
PLATEAU_HD inline double value(Half h) noexcept {
  const std::uint64_t sign = static_cast<std::uint64_t>(h.bits >> 15) << 63;
  const unsigned exponent = (h.bits >> 10) & 31U;
  const std::uint64_t mantissa = h.bits & 1023U;
  if (exponent == 0) {  // zero or subnormal: a multiple of 2^-24
    const double magnitude = static_cast<double>(mantissa) * 0x1p-24;
    return sign ? -magnitude : magnitude;
  }
  const std::uint64_t wide = exponent == 31 ? 2047U : exponent + (1023U - 15U);
  return bit_cast<double>(sign | (wide << 52) | (mantissa << 42));
}
PLATEAU_HD inline float value(BFloat b) noexcept {
  return bit_cast<float>(static_cast<std::uint32_t>(b.bits) << 16);
}
PLATEAU_HD inline float value(Bool b) noexcept { return b.byte ? 1.0F : 0.0F; }
template <class T>
PLATEAU_HD T value(T number) noexcept {
  return number;
}

/// Calls `body` with a null pointer whose type is the element type of `dtype`.
template <class Body>
PLATEAU_HD auto visit(Dtype dtype, Body&& body) {
  switch (dtype) {
    case Dtype::kBool:
      return body(static_cast<const Bool*>(nullptr));
    case Dtype::kInt8:
      return body(static_cast<const std::int8_t*>(nullptr));
    case Dtype::kInt16:
      return body(static_cast<const std::int16_t*>(nullptr));
    case Dtype::kInt32:
      return body(static_cast<const std::int32_t*>(nullptr));
    case Dtype::kInt64:
      return body(static_cast<const std::int64_t*>(nullptr));
    case Dtype::kUInt8:
      return body(static_cast<const std::uint8_t*>(nullptr));
    case Dtype::kUInt16:
      return body(static_cast<const std::uint16_t*>(nullptr));
    case Dtype::kUInt32:
      return body(static_cast<const std::uint32_t*>(nullptr));
    case Dtype::kUInt64:
      return body(static_cast<const std::uint64_t*>(nullptr));
    case Dtype::kFloat16:
      return body(static_cast<const Half*>(nullptr));
    case Dtype::kBFloat16:
      return body(static_cast<const BFloat*>(nullptr));
    case Dtype::kFloat32:
      return body(static_cast<const float*>(nullptr));
    case Dtype::kFloat64:
      break;
  }
  return body(static_cast<const double*>(nullptr));
}

/// Element i as T, which must hold it exactly (double rounds 64-bit integers as Python does).
template <class T>
PLATEAU_HD T metric_at(const Metrics& metrics, std::int64_t i) {
  return visit(metrics.dtype, [&](auto* tag) {
    return static_cast<T>(value(static_cast<decltype(tag)>(metrics.data)[i * metrics.stride]));
  });
}

}  // namespace plateau
