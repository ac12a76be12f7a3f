// SPDX-License-Identifier: BSD-3-Clause
// The time loops: the host's against stepping, and the device's against the host's, bit for bit.
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "check.hpp"
#include "plateau/replay.hpp"
#include "plateau/step.hpp"
#include "twins.hpp"

void test_replay();

namespace {

using namespace plateau;

constexpr std::int64_t kEpochs = 9;

/// Everything that a replay can write down, on both sides.
template <class T>
struct Rows {
  Rows(std::int64_t n, std::int64_t groups)
      : first_cut(zeros<std::int32_t>(n)),
        wasted(zeros<std::int32_t>(n)),
        published(zeros<float>(kEpochs * groups)),
        outcome(zeros<std::uint8_t>(kEpochs * n)),
        best(zeros<T>(kEpochs * n)),
        clock(zeros<std::int32_t>(kEpochs * n)),
        value(zeros<double>(kEpochs * n)) {}

  template <class V>
  static std::vector<V> zeros(std::int64_t size) {
    return std::vector<V>(static_cast<std::size_t>(size));
  }

  Record record(bool on_device, bool all) {
    const auto side = [on_device](auto& twin) {
      return on_device ? twin.device : twin.host.data();
    };
    Record out;
    out.first_cut = side(first_cut);
    out.wasted = side(wasted);
    if (!all) return out;
    out.published = side(published);
    out.outcome = side(outcome);
    out.best = side(best);
    out.clock = side(clock);
    out.value = side(value);
    return out;
  }

  void check() const {
    CHECK(first_cut.same());
    CHECK(wasted.same());
    CHECK(published.same());
    CHECK(outcome.same());
    CHECK(best.same());
    CHECK(clock.same());
    CHECK(value.same());
  }

  Twin<std::int32_t> first_cut, wasted;
  Twin<float> published;
  Twin<std::uint8_t> outcome;
  Twin<T> best;
  Twin<std::int32_t> clock;
  Twin<double> value;
};

struct Form {
  std::int64_t n;
  bool each, shared, all, options;
  std::vector<std::int64_t> counts = {};
};

/// Replays on both sides and compares all that was written. Returns how many lanes were cut.
template <class T>
std::int64_t compare(const Form& form) {
  const std::int64_t n = form.n;
  const Dtype dtype = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
  Pair<T> pair(n, form.each, form.counts);
  Parts parts(n, pair.groups, form.each, sizeof(T) == 8);
  parts.host.events = parts.device.events = Events{};
  Rows<T> rows(n, pair.groups);
  const std::int64_t width = form.shared ? 1 : n;
  const Twin<T> metrics(some<T>(kEpochs * width, {T(0.4), T(0.9), T(2.0), T(0.0), T(-1.0)}));
  const auto history = [&](const T* data) {
    return History{{data, form.shared ? 0 : 1, dtype}, width, kEpochs};
  };
  const Record host = rows.record(false, form.all), device = rows.record(true, form.all);
  if (form.options) {
    replay_cpu(pair.host, parts.host, history(metrics.host.data()), host, 3);
    replay_cuda(pair.device, parts.device, history(metrics.device), device, 0, nullptr);
    CHECK(parts.flags.same());
    CHECK(parts.smooth.same());
    CHECK(parts.recent.same());
  } else {
    replay_cpu(pair.host, history(metrics.host.data()), host, 3);
    replay_cuda(pair.device, history(metrics.device), device, 0, nullptr);
  }
  pair.check();
  rows.check();
  std::int64_t cut = 0;
  for (const std::int32_t first : rows.first_cut.host) cut += first > 0;
  return cut;
}

void a_replay_on_the_device_is_that_on_the_host() {
  const std::vector<std::int64_t> counts = {3, 0, 1, 40, 2, 2, 2, 9, 1};
  const auto lanes = static_cast<std::int64_t>(counts.size());
  std::int64_t cut = 0;
  for (int bits = 0; bits < 16; ++bits) {
    const bool each = bits & 1, shared = bits & 2, all = bits & 4, options = bits & 8;
    for (const std::int64_t n : {1, 64, 129, 600}) {
      cut += compare<double>({n, each, shared, all, options});
    }
    cut += compare<float>({257, each, shared, all, options && !each});
    cut += compare<double>({lanes, each, shared, all, options, counts});
  }
  CHECK(cut > 1000);
}

/// What a cut would read: a rate written in place may have become the master or not.
std::vector<double> rates_of(const Pair<double>& pair) {
  std::vector<double> rates;
  for (std::size_t i = 0; i < pair.rate.host.size(); ++i) {
    rates.push_back(current_rate(pair.rate.host[i], pair.published.host[i]));
  }
  return rates;
}

void a_replay_on_the_host_is_stepping() {
  for (const bool each : {false, true}) {
    for (const std::int64_t n : {1, 63, 512, 1500}) {
      noise.seed(11);
      Pair<double> one(n, each, {});
      noise.seed(11);
      Pair<double> other(n, each, {});
      Rows<double> rows(n, n);
      const auto metrics = some<double>(kEpochs * n, {0.4, 0.9, 2.0, 0.0});
      for (std::int64_t epoch = 0; epoch < kEpochs; ++epoch) {
        step_cpu(one.host, Metrics{metrics.data() + epoch * n, 1, Dtype::kFloat64});
      }
      const History history{{metrics.data(), 1, Dtype::kFloat64}, n, kEpochs};
      replay_cpu(other.host, history, rows.record(false, false), 1);
      CHECK(one.best.host == other.best.host);
      CHECK(one.clock.host == other.clock.host);
      CHECK(one.outcome.host == other.outcome.host);
      CHECK(rates_of(one) == rates_of(other));
      CHECK(one.published.host == other.published.host);
      CHECK(one.num_reductions.host == other.num_reductions.host);
      CHECK(one.num_steps.host == other.num_steps.host);
    }
  }
}

void nothing_to_replay_writes_nothing() {
  Pair<double> pair(2, false, {});
  Rows<double> rows(2, 2);
  const History none{{nullptr, 0, Dtype::kFloat64}, 1, 0};
  replay_cpu(pair.host, none, rows.record(false, true), 4);
  replay_cuda(pair.device, none, rows.record(true, true), 0, nullptr);
  pair.check();
  CHECK(pair.num_steps.host[0] == 41);
}

}  // namespace

void test_replay() {
  a_replay_on_the_device_is_that_on_the_host();
  a_replay_on_the_host_is_stepping();
  nothing_to_replay_writes_nothing();
}
