// SPDX-License-Identifier: BSD-3-Clause
// Lanes with storage of their own, made, bound and compared by the tables: no setting and no field
// of the state is named here, so none can be forgotten.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "plateau/lanes.hpp"

namespace plateau {

template <class T>
using Vector = std::vector<T>;

/// B, float or double, in place of Best.
template <class T, class B>
using Stored = std::conditional_t<std::is_same_v<T, Best>, B, T>;

/// A setting and its storage: `all`, unless there is one for each.
template <template <class> class Array, class T>
struct Choice {
  T all{};
  Array<T> each{};
  bool in_play = false;  // whether it takes the lanes out of the plain loop

  Choice() = default;
  Choice(T value) : all(value) {}
  T operator[](std::size_t i) const { return each.empty() ? all : each[i]; }
};

template <template <class> class Array>
struct Choices {
#define PLATEAU_FIELD(name, type, of, off, domain, part, help) \
  Choice<Array, type> name{static_cast<type>(off)};
  PLATEAU_SETTINGS(PLATEAU_FIELD)
#undef PLATEAU_FIELD
  // what else the table of state asks for
  struct {
    bool in_play;
  } always{true}, parts{false}, events{false};
};

template <template <class> class Array, class B>
struct Fields {
#define PLATEAU_FIELD(name, type, of, first, domain, who) Array<Stored<type, B>> name;
  PLATEAU_STATE(PLATEAU_FIELD)
#undef PLATEAU_FIELD
};

/// Calls `body(name, of, one.field, other.field)` for each field of the state.
template <class One, class Other, class Body>
void for_fields(One& one, Other& other, Body body) {
#define PLATEAU_FIELD(name, type, of, first, domain, who) body(#name, Of::of, one.name, other.name);
  PLATEAU_STATE(PLATEAU_FIELD)
#undef PLATEAU_FIELD
}

/// Calls `body(one.setting, other.setting)` for each setting.
template <class One, class Other, class Body>
void for_settings(One& one, Other& other, Body body) {
#define PLATEAU_FIELD(name, type, of, off, domain, part, help) body(one.name, other.name);
  PLATEAU_SETTINGS(PLATEAU_FIELD)
#undef PLATEAU_FIELD
}

/// Points `lanes` at this storage; at nothing where a field is not there.
template <class Offsets, class State, class Settings>
void bind(Lanes& lanes, Offsets& offsets, State& state, Settings& settings) {
  lanes.offsets = offsets.empty() ? nullptr : offsets.data();
  for_fields(lanes.state, state, [](const char*, Of, auto& pointer, auto& array) {
    pointer = array.empty() ? nullptr : array.data();
  });
  for_settings(lanes.settings, settings, [](auto& setting, auto& choice) {
    setting.all = choice.all;
    setting.each = choice.each.empty() ? nullptr : choice.each.data();
  });
  lanes.settle();
}

/// How many lanes, how many rates each owns (none: one each), and how many events are kept.
struct Form {
  std::int64_t n = 1;
  std::vector<std::int64_t> counts = {};
  std::int64_t events = 0;

  std::int64_t groups() const {
    std::int64_t sum = counts.empty() ? n : 0;
    for (const std::int64_t count : counts) sum += count;
    return sum;
  }
};

constexpr std::int32_t kWindowRows = 4;

template <class B>
constexpr Dtype dtype_of() {
  return sizeof(B) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
}

/// Lanes in their first state.
template <class B>
class Held {
 public:
  explicit Held(Form of_lanes, Choices<Vector> chosen = {})
      : form(std::move(of_lanes)), settings(std::move(chosen)) {
    if (!form.counts.empty()) offsets.push_back(0);
    for (const std::int64_t count : form.counts) offsets.push_back(offsets.back() + count);
    settings.events.in_play = form.events > 0;
#define PLATEAU_FIELD(name, type, of, off, domain, part, help)                              \
  settings.name.in_play = needs_parts(settings.name, static_cast<type>(off), domain, part); \
  settings.parts.in_play |= settings.name.in_play;
    PLATEAU_SETTINGS(PLATEAU_FIELD)
#undef PLATEAU_FIELD
    settings.parts.in_play |= settings.events.in_play;
#define PLATEAU_FIELD(name, type, of, first, domain, who)                 \
  if (settings.who.in_play) {                                             \
    state.name.assign(size(Of::of), static_cast<Stored<type, B>>(first)); \
  }
    PLATEAU_STATE(PLATEAU_FIELD)
#undef PLATEAU_FIELD
    constexpr B kWorst = std::numeric_limits<B>::infinity();
    for (std::size_t i = 0; i < state.best.size(); ++i) {
      state.best[i] = settings.mode[i] == kMax ? -kWorst : kWorst;
    }
  }

  /// What is the same wherever the storage lies.
  Lanes frame() const {
    Lanes lanes;
    lanes.n = form.n;
    lanes.num_groups = form.groups();
    lanes.best_dtype = dtype_of<B>();
    lanes.window_rows = kWindowRows;
    lanes.events_capacity = form.events;
    return lanes;
  }

  /// To be asked for again after a change of settings.
  Lanes lanes() {
    Lanes lanes = frame();
    bind(lanes, offsets, state, settings);
    return lanes;
  }

  std::size_t size(Of of) const {
    Lanes lanes = frame();
    lanes.offsets = offsets.empty() ? nullptr : offsets.data();
    const std::int64_t sizes[] = {lanes.n, lanes.num_groups,      lanes.num_counts(lanes.n),
                                  1,       kWindowRows * lanes.n, form.events};
    return static_cast<std::size_t>(sizes[static_cast<int>(of)]);
  }

  bool has_parts() const { return settings.parts.in_play; }

  void write_rates(double rate) {
    state.rate.assign(state.rate.size(), rate);
    state.published.assign(state.published.size(), static_cast<float>(rate));
  }

  Form form;
  std::vector<std::int64_t> offsets;
  Choices<Vector> settings;
  Fields<Vector, B> state;

 private:
  /// As Python asks: lanes of which each has its own value may have any.
  template <class T>
  static bool needs_parts(const Choice<Vector, T>& choice, T, const char*, unsigned part) {
    return part != kNever && (!choice.each.empty() || (part >> choice.all & 1U));
  }
  template <class T>
  static bool needs_parts(const Choice<Vector, T>& choice, T off, const Domain&, unsigned part) {
    return part != kNever && (!choice.each.empty() || choice.all != off);
  }
};

/// With one pattern of bits for all NaNs: processors choose different ones.
template <class T>
T one_nan(T value) {
  return value != value ? std::numeric_limits<T>::quiet_NaN() : value;
}

template <class T>
bool same_bits(const T* one, const T* other, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    const T a = one_nan(one[i]), b = one_nan(other[i]);
    if (std::memcmp(&a, &b, sizeof a) != 0) return false;
  }
  return true;
}

template <class T>
bool same_bits(const std::vector<T>& one, const std::vector<T>& other) {
  return one.size() == other.size() && same_bits(one.data(), other.data(), one.size());
}

/// The names of the fields in which they differ by a bit. Events are compared elsewhere: their
/// order within a step is free.
template <class B>
std::string differing(const Held<B>& one, const Held<B>& other) {
  std::string names;
  for_fields(one.state, other.state, [&](const char* name, Of of, const auto& a, const auto& b) {
    if (of != Of::kEvent && !same_bits(a, b)) names += std::string(" ") + name;
  });
  return names;
}

}  // namespace plateau
