// SPDX-License-Identifier: BSD-3-Clause
// The tables of settings and state, for Python, which derives all that it does from them.
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <string>
#include <type_traits>

#include "plateau/lane.hpp"
#include "plateau/settings.hpp"
#include "plateau/state.hpp"
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

}  // namespace

void register_tables(py::module_& m) {
  m.def("settings_table", &settings_table, "A row per setting, see csrc/plateau/settings.hpp.");
  m.def("state_table", &state_table, "A row per field of the state, see csrc/plateau/state.hpp.");
  m.def("bits", &bits, "What is packed in bytes: outcome and flags, and why of a replay.");
  m.attr("REASONS") = kReasons;
  m.attr("STOP_REASONS") = kStopReasons;
  m.attr("LANES_PER_COUNT") = kLanesPerCount;
}

}  // namespace plateau
