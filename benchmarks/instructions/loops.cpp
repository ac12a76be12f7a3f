// SPDX-License-Identifier: BSD-3-Clause
// Steps of the host loops, one of each kind, for callgrind to count; see count.py.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "../../tests/cpp/held.hpp"
#include "plateau/step.hpp"

extern "C" void begin_count();
extern "C" void end_count(const char* name);

namespace {

using namespace plateau;

constexpr std::int32_t kPatience = 1000;

/// Which of the lanes have borne what they can before a step without improvement.
struct Cut {
  const char* word;
  std::size_t first, every;
};
constexpr std::size_t kNone = SIZE_MAX;
constexpr Cut kCuts[] = {{"quiet", kNone, 1}, {"1% cut", 50, 100}, {"all cut", 0, 1}};

/// Counts steps of `n` lanes in which no metric is better than the one before.
template <class T>
void count(const std::string& name, std::int64_t n, Choices<Vector> settings,
           const std::vector<std::uint8_t>& active = {}) {
  settings.patience.all = kPatience;
  for (auto& patience : settings.patience.each) patience = kPatience;
  Held<T> held({n}, settings);
  held.write_rates(1.0);
  const Lanes lanes = held.lanes();
  const std::vector<T> flat(held.state.clock.size(), T{1});
  const Metrics metrics{flat.data(), 1, dtype_of<T>()};
  const auto step = [&] {
    if (held.has_parts()) {
      step_lanes_cpu(lanes, metrics, active.empty() ? nullptr : active.data());
    } else {
      step_cpu(lanes, metrics);
    }
  };
  step();  // the first metric is the best
  for (const Cut& cut : kCuts) {
    if (cut.first != kNone && cut.first >= flat.size()) continue;
    std::fill_n(held.state.clock.data(), n, 0);
    for (std::size_t i = cut.first; i < flat.size(); i += cut.every)
      held.state.clock[i] = kPatience;
    const std::string what = name + ", " + cut.word;
    begin_count();
    step();
    end_count(what.c_str());
  }
}

template <class T>
void count_all(const std::string& type) {
  constexpr std::size_t kBlock = 512;
  const std::string block = std::to_string(kBlock) + " lanes of " + type;
  count<T>("16 lanes of " + type, 16, {});
  count<T>(block, kBlock, {});

  Choices<Vector> per_lane;
  per_lane.threshold.each.assign(kBlock, 1e-4);
  per_lane.patience.each.assign(kBlock, 0);
  count<T>(block + ", own threshold and patience", kBlock, per_lane);

  Choices<Vector> limited;
  limited.nan = kNanSkip;
  limited.max_reductions = 100;
  limited.patience_at_min = 100;
  const std::vector<std::uint8_t> active(kBlock, 1);
  count<T>(block + ", mask, nan and limits", kBlock, limited, active);
}

const char* vectors() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
  if (__builtin_cpu_supports("x86-64-v4")) return "x86-64-v4";
  if (__builtin_cpu_supports("x86-64-v3")) return "x86-64-v3";
#endif
  return "baseline";
}

}  // namespace

int main() {
  count_all<float>("f32");
  count_all<double>("f64");
  Choices<Vector> smooth;
  smooth.smoothing = 0.9;
  count<double>("512 lanes of f64, smoothing", 512, smooth);
  std::printf("{\"compiler\": \"%s\", \"vectors\": \"%s\"}\n", PLATEAU_COMPILER, vectors());
}
