// SPDX-License-Identifier: BSD-3-Clause
// Lanes in a random state with random settings, drawn from the domains that the tables give them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

#include "held.hpp"

namespace plateau {

inline std::mt19937 noise(7);

inline int below(int limit) { return static_cast<int>(noise() % static_cast<unsigned>(limit)); }

template <class T>
T one_of(const std::vector<T>& choices) {
  return choices[static_cast<std::size_t>(below(static_cast<int>(choices.size())))];
}

template <class T>
std::vector<T> some(std::int64_t size, const std::vector<T>& choices) {
  std::vector<T> values(static_cast<std::size_t>(size));
  for (T& value : values) value = one_of(choices);
  return values;
}

/// Numbers of a domain at which something may turn.
template <class T>
std::vector<T> within(const Domain& domain) {
  std::vector<T> found;
  for (const double x : {-kInfinity, -2.0, -1.0, -0.25, 0.0, 0.0, 1e-8, 1e-3, 0.05, 0.1, 0.5, 0.9,
                         1.0, 2.0, 3.0, kInfinity}) {
    const bool anything = domain.low > domain.high;
    const bool above = domain.open_low ? x > domain.low : x >= domain.low;
    const bool under = domain.open_high ? x < domain.high : x <= domain.high;
    const bool whole = std::isfinite(x) && x == std::floor(x);
    if ((anything || (above && under)) && (whole || !std::is_integral_v<T>)) {
      found.push_back(static_cast<T>(x));
    }
  }
  return found;
}

/// The values that a setting may be given: with no optional parts those that need none.
template <class T>
std::vector<T> allowed(const Domain& domain, T off, unsigned part, bool parts) {
  if (part != kNever && !parts) return {off};
  std::vector<T> found = within<T>(domain);
  const bool is_limit = !(off >= domain.low && off <= domain.high);
  found.insert(found.end(), is_limit ? 2 * found.size() : 1, off);  // or no lane would go on
  return found;
}

inline std::vector<std::uint8_t> allowed(const char* words, std::uint8_t, unsigned part,
                                         bool parts) {
  std::vector<std::uint8_t> found;
  for (std::uint8_t code = 0; words; words = std::strchr(words + 1, ' '), ++code) {
    if (parts || !(part >> code & 1U)) found.push_back(code);
  }
  return found;
}

/// Which settings are one per lane: none, all, or a few.
enum class Each { kNone, kAll, kFew };

/// What is to be drawn. With `parts` most optional ones are in play, with `light` those that most
/// lanes have.
struct Draw {
  Form form;
  Each each = Each::kNone;
  bool parts = false;
  Rule rule = kPlateau;  // another than this is not drawn
  bool light = false;
};

inline Choices<Vector> drawn_settings(const Draw& draw) {
  Choices<Vector> settings;
  const auto pick = [&](auto& choice, const auto& values, bool each, std::int64_t size) {
    choice.all = one_of(values);
    if (each) choice.each = some(size, values);
  };
#define PLATEAU_FIELD(name, type, of, off, domain, part, help)                               \
  {                                                                                          \
    const bool parts = draw.parts && below(3) > 0;                                           \
    const bool some = draw.each == Each::kAll || (draw.each == Each::kFew && below(4) == 0); \
    const bool each = some && Of::of != Of::kBatch;                                          \
    pick(settings.name, allowed(domain, static_cast<type>(off), part, parts),                \
         each && ((part) == kNever || parts),                                                \
         Of::of == Of::kGroup ? draw.form.groups() : draw.form.n);                           \
  }
  PLATEAU_SETTINGS(PLATEAU_FIELD)
#undef PLATEAU_FIELD
  if (draw.rule != kPlateau) settings.rule = draw.rule;
  if (draw.light) {
    const auto leave_out = [](auto& choice, auto off) {
      choice.each.clear();
      choice.all = off;
    };
    leave_out(settings.counting, one_of<std::uint8_t>({kTorch, kOptax}));
    leave_out(settings.smoothing, 0.0);
    leave_out(settings.accumulate, 1);
    leave_out(settings.window, 1);
    leave_out(settings.patience_at_min, kNoLimit);
    leave_out(settings.stop_patience, kNoLimit);
    leave_out(settings.warmup_steps, 0);
    leave_out(settings.noise_from, kNoLimit);
  }
  return settings;
}

/// Lanes in any state that they may be in, and in a few that take years to get to.
template <class B>
Held<B> drawn(const Draw& draw) {
  Held<B> held(draw.form, drawn_settings(draw));
  Fields<Vector, B>& state = held.state;
#define PLATEAU_FIELD(name, type, of, first, domain, who) \
  state.name = some(static_cast<std::int64_t>(state.name.size()), within<Stored<type, B>>(domain));
  PLATEAU_STATE(PLATEAU_FIELD)
#undef PLATEAU_FIELD
  const Lanes lanes = held.lanes();
  // what one field says of another
  for (std::int64_t& steps : state.num_steps) steps = state.num_steps[0];
  for (std::int64_t lane = 0; lane < lanes.n; ++lane) {
    lanes.state.born[lane] = lanes.steps(lane) - below(4);
  }
  for (std::size_t i = 0; i < state.rate.size(); ++i) {  // some written in place since
    state.published[i] = below(8) ? static_cast<float>(state.rate[i]) : 0.3F;
  }
  for (std::uint8_t& flags : state.flags) {
    flags = one_of<std::uint8_t>({0, 0, 0, kOnceFired, kOnceFired | kAtMin, kFinished});
  }
  for (std::int32_t& clock : state.clock) {
    const auto most = static_cast<std::int32_t>(kMost);
    if (below(16) == 0) clock = below(2) ? most : -most;
  }
  return held;
}

}  // namespace plateau
