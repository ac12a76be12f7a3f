// SPDX-License-Identifier: BSD-3-Clause
// The tables of settings and state, for Python, which derives all that it does from them; and
// numbers held to a row of them.
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "plateau/lane.hpp"
#include "plateau/metric.hpp"
#include "plateau/settings.hpp"
#include "plateau/state.hpp"
#include "python/borrow.hpp"
#include "python/described.hpp"
#include "python/register.hpp"

namespace py = pybind11;

namespace plateau {
namespace {

using Row = py::typing::Dict<py::str, py::object>;
using Bits = py::typing::Dict<py::str, py::int_>;
using Rows = py::typing::List<Row>;

template <class T>
const char* type_name() {
  if constexpr (std::is_same_v<T, Best>) return "best";
  return name_for<T>();
}

const char* name_of(Of of) {
  switch (of) {
    case Of::kLane:
      return "lane";
    case Of::kGroup:
      return "group";
    case Of::kCount:
      return "count";
    case Of::kBatch:
      return "batch";
    case Of::kWindow:
      return "window";
    case Of::kEvent:
      return "event";
  }
  return "";
}

void tell(Row& row, const Domain& domain) {
  row["low"] = py::float_(domain.low);
  row["high"] = py::float_(domain.high);
  row["open_low"] = py::bool_(domain.open_low);
  row["open_high"] = py::bool_(domain.open_high);
  row["expected"] = py::str(domain.expected);
  row["words"] = py::str("");
}

void tell(Row& row, const char* words) {
  tell(row, Domain{0, 255, "a word"});
  row["words"] = py::str(words);
}

template <class T, class DomainOrWords>
Row row_of(const char* name, Of of, double first, const DomainOrWords& domain) {
  Row row;
  row["name"] = py::str(name);
  row["type"] = py::str(type_name<T>());
  row["of"] = py::str(name_of(of));
  row["first"] = py::float_(first);
  tell(row, domain);
  return row;
}

Rows settings_table() {
  Rows rows;
#define PLATEAU_ROW(name, type, of, off, domain, part, help)                 \
  {                                                                          \
    Row row = row_of<type>(#name, Of::of, static_cast<double>(off), domain); \
    row["part"] = py::int_(static_cast<unsigned>(part));                     \
    row["help"] = py::str(help);                                             \
    rows.append(row);                                                        \
  }
  PLATEAU_SETTINGS(PLATEAU_ROW)
#undef PLATEAU_ROW
  return rows;
}

Rows state_table() {
  Rows rows;
#define PLATEAU_ROW(name, type, of, first, domain, who)                        \
  {                                                                            \
    Row row = row_of<type>(#name, Of::of, static_cast<double>(first), domain); \
    row["who"] = py::str(#who);                                                \
    rows.append(row);                                                          \
  }
  PLATEAU_STATE(PLATEAU_ROW)
#undef PLATEAU_ROW
  return rows;
}

Bits bits() {
  Bits bits;
  bits["improved"] = static_cast<int>(kImproved);
  bits["reduced"] = static_cast<int>(kReduced);
  bits["raised"] = static_cast<int>(kRaised);
  bits["fired"] = static_cast<int>(kFired);
  bits["finished"] = static_cast<int>(kFinished);
  bits["at_min"] = static_cast<int>(kAtMin);
  bits["reason"] = static_cast<int>(kReasonBits);
  bits["finishes"] = static_cast<int>(kAlsoFinished);
  bits["first"] = static_cast<int>(kAlsoFirst);
  bits["gain"] = static_cast<int>(kAlsoGain);
  return bits;
}

/// Where the first element is that a domain does not hold, or -1.
template <class T>
std::int64_t first_outside(const T* data, std::int64_t n, const Domain& domain, bool whole) {
  constexpr bool kWholeAnyway = std::is_integral_v<T>;
  const auto bad = [&](T element) {
    const auto x = static_cast<double>(value(element));
    const bool above = (x > domain.low) | ((x == domain.low) & !domain.open_low);
    const bool below = (x < domain.high) | ((x == domain.high) & !domain.open_high);
    bool good = above & below;
    if constexpr (!kWholeAnyway) good = good && (!whole || x == std::floor(x));
    return !good;
  };
  constexpr std::int64_t kBlock = 512;  // looked at as a whole, in vectors
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t end = std::min(begin + kBlock, n);
    bool any = false;
    for (std::int64_t i = begin; i < end; ++i) any |= bad(data[i]);
    for (std::int64_t i = begin; any && i < end; ++i) {
      if (bad(data[i])) return i;
    }
  }
  return -1;
}

std::int64_t first_outside_of(const py::object& values, double low, double high, bool open_low,
                              bool open_high, bool whole) {
  DLTensor tensor;
  const bool plain = describe(values, tensor) && on_cpu(tensor) && tensor.ndim < 2 &&
                     (tensor.ndim == 0 || tensor.shape[0] < 2 || tensor.strides[0] == 1);
  const auto dtype = plain ? dtype_of(tensor.dtype) : std::nullopt;
  if (!dtype) throw std::invalid_argument("values: expected a contiguous vector on the CPU");
  const std::int64_t n = tensor.ndim == 0 ? 1 : tensor.shape[0];
  const Domain domain{low, high, "", open_low, open_high};
  return visit(*dtype, [&](auto* tag) {
    return first_outside(static_cast<decltype(tag)>(data_of(tensor)), n, domain, whole);
  });
}

}  // namespace

void register_tables(py::module_& m) {
  m.def("settings_table", &settings_table, "A row per setting, see csrc/plateau/settings.hpp.");
  m.def("state_table", &state_table, "A row per field of the state, see csrc/plateau/state.hpp.");
  m.def("bits", &bits, "What is packed in bytes: outcome and flags, and why of a replay.");
  m.def("first_outside", &first_outside_of, py::arg("values"), py::arg("low"), py::arg("high"),
        py::arg("open_low"), py::arg("open_high"), py::arg("whole"),
        "Where the first of some values, a vector or 0-d on the CPU, is that is not between these "
        "ends, or not whole; -1 for none.");
  m.attr("REASONS") = kReasons;
  m.attr("STOP_REASONS") = kStopReasons;
  m.attr("LANES_PER_COUNT") = kLanesPerCount;
}

}  // namespace plateau
