// SPDX-License-Identifier: BSD-3-Clause
// What a replay writes down, with storage of its own.
#pragma once

#include <cstdint>
#include <string>

#include "held.hpp"
#include "plateau/replay.hpp"

namespace plateau {

/// How much is written down: one value per lane, the state after each epoch too, or why as well.
enum class Tell { kSummary, kState, kReasons };

// name, type, where it is written down, of what there is one
#define PLATEAU_ROWS(X)                       \
  X(first_cut, std::int32_t, kSummary, kLane) \
  X(wasted, std::int32_t, kSummary, kLane)    \
  X(published, float, kState, kGroup)         \
  X(outcome, std::uint8_t, kState, kLane)     \
  X(best, Best, kState, kLane)                \
  X(clock, std::int32_t, kState, kLane)       \
  X(value, double, kState, kLane)             \
  X(why, std::uint8_t, kReasons, kLane)       \
  X(gate, double, kReasons, kLane)            \
  X(count, std::int32_t, kReasons, kLane)     \
  X(limit, std::int32_t, kReasons, kLane)

template <template <class> class Array, class B>
struct Rows {
#define PLATEAU_ROW(name, type, tell, of) Array<Stored<type, B>> name;
  PLATEAU_ROWS(PLATEAU_ROW)
#undef PLATEAU_ROW
};

template <class One, class Other, class Body>
void for_rows(One& one, Other& other, Body body) {
#define PLATEAU_ROW(name, type, tell, of) body(#name, one.name, other.name);
  PLATEAU_ROWS(PLATEAU_ROW)
#undef PLATEAU_ROW
}

template <class B>
Rows<Vector, B> rows_for(const Form& form, std::int64_t epochs, Tell most) {
  Rows<Vector, B> rows;
#define PLATEAU_ROW(name, type, tell, of)                                                       \
  if (Tell::tell <= most) {                                                                     \
    rows.name.resize(static_cast<std::size_t>((Of::of == Of::kGroup ? form.groups() : form.n) * \
                                              (Tell::tell == Tell::kSummary ? 1 : epochs)));    \
  }
  PLATEAU_ROWS(PLATEAU_ROW)
#undef PLATEAU_ROW
  return rows;
}

template <class AnyRows>
Record record_of(AnyRows& rows) {
  Record record;
  for_rows(record, rows, [](const char*, auto& pointer, auto& array) {
    pointer = array.empty() ? nullptr : array.data();
  });
  return record;
}

/// The names of the rows that both have and in which they differ by a bit.
template <class B>
std::string differing(const Rows<Vector, B>& one, const Rows<Vector, B>& other) {
  std::string names;
  for_rows(one, other, [&](const char* name, const auto& a, const auto& b) {
    if (!a.empty() && !b.empty() && !same_bits(a, b)) names += std::string(" ") + name;
  });
  return names;
}

}  // namespace plateau
