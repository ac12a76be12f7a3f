// SPDX-License-Identifier: BSD-3-Clause
// The same numbers on the host and on a device: arrays, settings, lanes and their optional parts.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "plateau/rule.hpp"
#include "plateau/step.hpp"

namespace plateau {

inline std::mt19937 noise(7);

inline int below(int limit) { return static_cast<int>(noise() % static_cast<unsigned>(limit)); }

inline void must(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

/// With one pattern of bits for all NaNs: processors choose different ones.
template <class T>
std::vector<T> one_nan(std::vector<T> values) {
  for (T& value : values) {
    if (value != value) value = std::numeric_limits<T>::quiet_NaN();
  }
  return values;
}

/// The same numbers on the host and on the device, `shift` elements from where memory begins.
template <class T>
class Twin {
 public:
  explicit Twin(std::vector<T> values, std::size_t shift = 0) : host(std::move(values)) {
    void* memory = nullptr;
    must(cudaMalloc(&memory, (host.size() + shift) * sizeof(T) + 1));
    memory_ = static_cast<T*>(memory);
    device = memory_ + shift;
    must(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyDefault));
  }
  ~Twin() { cudaFree(memory_); }
  Twin(const Twin&) = delete;
  Twin& operator=(const Twin&) = delete;

  std::vector<T> on_device() const {
    std::vector<T> from(host.size());
    must(cudaMemcpy(from.data(), device, from.size() * sizeof(T), cudaMemcpyDefault));
    return from;
  }

  /// Whether the device holds the same bits as the host, but for those of NaN.
  bool same() const {
    return host.empty() || std::memcmp(one_nan(on_device()).data(), one_nan(host).data(),
                                       host.size() * sizeof(T)) == 0;
  }

  std::vector<T> host;
  T* device;

 private:
  T* memory_;
};

template <class T>
std::vector<T> some(std::int64_t size, std::initializer_list<T> choices) {
  std::vector<T> values(static_cast<std::size_t>(size));
  for (T& value : values) value = choices.begin()[below(static_cast<int>(choices.size()))];
  return values;
}

/// A setting for all lanes, or one for each of them, on both sides.
template <class T>
struct Choice {
  Choice(bool each, std::int64_t size, std::initializer_list<T> choices)
      : values(some<T>(each ? size : 1, choices)), host{}, device{} {
    host.each = each ? values.host.data() : nullptr;
    device.each = each ? values.device : nullptr;
    if (!each) host.all = device.all = values.host[0];
  }
  Twin<T> values;
  Setting<T> host, device;
};

/// Lanes in a random state, on both sides. With `counts`, lanes own that many rates each.
template <class T>
struct Pair {
  Pair(std::int64_t n, bool each, const std::vector<std::int64_t>& counts)
      : offsets(offsets_of(counts)),
        groups(counts.empty() ? n : offsets.host.back()),
        best(some<T>(n, {T(1), T(0.5), std::numeric_limits<T>::infinity()})),
        clock(some<std::int32_t>(n, {0, 1, -1, 2})),
        outcome(some<std::uint8_t>(n, {0, 1, 2, 3})),
        num_reductions(some<std::int32_t>(n, {0, 5})),
        num_steps({41}),
        rate(some<double>(groups, {0.1, 1.0, 1e-9})),
        published(some_written(rate.host)),
        gate_scale(each, n, {1.0 - 1e-4, 0.9, 1.0}),
        gate_shift(each, n, {0.0, -0.25, 0.1}),
        maximize(each, n, {0, 1}),
        patience(each, n, {0, 1, 2}),
        cooldown(each, n, {0, 1, 3}),
        factor(each, n, {0.1, 0.5, 0.7}),
        eps(each, n, {0.0, 1e-8, 1e-3}),
        min_lr(each, groups, {0.0, 1e-3, 0.05}) {
    host = lanes(best.host.data(), clock.host.data(), outcome.host.data(),
                 num_reductions.host.data(), num_steps.host.data(), rate.host.data(),
                 published.host.data(), counts.empty() ? nullptr : offsets.host.data(), n, groups,
                 [](auto& choice) { return choice.host; });
    device =
        lanes(best.device, clock.device, outcome.device, num_reductions.device, num_steps.device,
              rate.device, published.device, counts.empty() ? nullptr : offsets.device, n, groups,
              [](auto& choice) { return choice.device; });
  }

  /// The rates in float32, some of them written in place since.
  static std::vector<float> some_written(const std::vector<double>& rates) {
    std::vector<float> values(rates.begin(), rates.end());
    for (float& value : values) value = below(8) ? value : 0.3F;
    return values;
  }

  static std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& counts) {
    std::vector<std::int64_t> offsets{0};
    for (const std::int64_t count : counts) offsets.push_back(offsets.back() + count);
    return offsets;
  }

  template <class Side>
  Lanes lanes(void* best_of, std::int32_t* clock_of, std::uint8_t* outcome_of,
              std::int32_t* reductions_of, std::int64_t* steps_of, double* rate_of,
              float* published_of, const std::int64_t* offsets_of, std::int64_t n,
              std::int64_t num_groups, Side side) {
    Lanes out{};
    out.n = n;
    out.best_dtype = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
    out.best = best_of;
    out.clock = clock_of;
    out.outcome = outcome_of;
    out.num_reductions = reductions_of;
    out.num_steps = steps_of;
    out.rate = rate_of;
    out.published = published_of;
    out.offsets = offsets_of;
    out.num_groups = num_groups;
    out.settings.gate_scale = side(gate_scale);
    out.settings.gate_shift = side(gate_shift);
    out.settings.maximize = side(maximize);
    out.settings.patience = side(patience);
    out.settings.cooldown = side(cooldown);
    out.settings.factor = side(factor);
    out.settings.eps = side(eps);
    out.settings.min_lr = side(min_lr);
    return out;
  }

  /// A rate written in place may have become the master or not: what counts is what a cut reads.
  bool same_rates() const {
    const std::vector<double> masters = rate.on_device();
    for (std::size_t i = 0; i < masters.size(); ++i) {
      const float written = published.host[i];
      if (current_rate(masters[i], written) != current_rate(rate.host[i], written)) return false;
    }
    return true;
  }

  /// Steps both sides and compares every field.
  void step(const void* on_host, const void* on_device, std::int64_t stride, Dtype dtype) {
    step_cpu(host, Metrics{on_host, stride, dtype});
    step_cuda(device, Metrics{on_device, stride, dtype}, 0, nullptr);
    check();
  }

  void check() const {
    CHECK(best.same());
    CHECK(clock.same());
    CHECK(outcome.same());
    CHECK(num_reductions.same());
    CHECK(num_steps.same());
    CHECK(published.same());
    CHECK(same_rates());
  }

  Twin<std::int64_t> offsets;
  std::int64_t groups;
  Twin<T> best;
  Twin<std::int32_t> clock;
  Twin<std::uint8_t> outcome;
  Twin<std::int32_t> num_reductions;
  Twin<std::int64_t> num_steps;
  Twin<double> rate;
  Twin<float> published;
  Choice<double> gate_scale, gate_shift;
  Choice<std::uint8_t> maximize;
  Choice<std::int32_t> patience, cooldown;
  Choice<double> factor, eps, min_lr;
  Lanes host, device;
};

/// Optional parts in a random state, on both sides. Those that plain lanes lack may be missing.
struct Parts {
  Parts(std::int64_t n, std::int64_t groups, bool each, bool all)
      : on_nan(each, n, {0, 1, 2, 3}),
        safe_gate(each, n, {0, 1}),
        keras(each, n, {0, 1}),
        initial_patience(each, n, {0, 1, 3}),
        accumulate(each, n, {1, 2, 3}),
        window(each, n, {1, 2, kLongest}),
        smoothing(each, n, {0.0, 0.5, 0.9}),
        max_reductions(each, n, {1, 3, INT32_MAX}),
        patience_at_min(each, n, {1, 2, INT32_MAX}),
        warmup_steps(each, n, {0, 0, 2, 9}),
        warmup_start_factor(each, n, {0.0, 0.3}),
        flags(some<std::uint8_t>(n, {0, 0, 0, kFinished, kOnceFired, kAtMin})),
        age(some<std::int64_t>(n, {0, 1, 7})),
        last_reduction(some<std::int64_t>(n, {0, 1})),
        at_min_steps(some<std::int32_t>(n, {0, 1})),
        total(std::vector<double>(static_cast<std::size_t>(n), 0.0)),
        taken(std::vector<std::int32_t>(static_cast<std::size_t>(n), 0)),
        recent(some<double>(n * kLongest, {0.5, 1.0, 0.1})),
        pushed(some<std::int64_t>(n, {0, 2, 7})),
        smooth(some<double>(n, {0.0, 0.25})),
        smooth_rest(some<double>(n, {1.0, 0.5})),
        written({0}),
        whole(std::vector<std::int64_t>(static_cast<std::size_t>(3 * groups), 0)),
        real(std::vector<double>(static_cast<std::size_t>(4 * groups), 0.0)),
        capacity(groups) {
    host = options(all, [](auto& value) { return side_of(value, false); });
    device = options(all, [](auto& value) { return side_of(value, true); });
  }

  template <class T>
  static T* side_of(Twin<T>& twin, bool on_device) {
    return on_device ? twin.device : twin.host.data();
  }
  template <class T>
  static Setting<T> side_of(Choice<T>& choice, bool on_device) {
    return on_device ? choice.device : choice.host;
  }

  template <class Side>
  Options options(bool all, Side side) {
    Options out;
    out.on_nan = side(on_nan);
    out.safe_gate = side(safe_gate);
    out.keras = side(keras);
    out.initial_patience = side(initial_patience);
    out.accumulate = side(accumulate);
    out.window = side(window);
    out.smoothing = side(smoothing);
    out.max_reductions = side(max_reductions);
    out.patience_at_min = side(patience_at_min);
    out.warmup_steps = side(warmup_steps);
    out.warmup_start_factor = side(warmup_start_factor);
    out.flags = side(flags);
    out.age = side(age);
    if (!all) return out;
    out.last_reduction = side(last_reduction);
    out.at_min_steps = side(at_min_steps);
    out.total = side(total);
    out.taken = side(taken);
    out.recent = side(recent);
    out.recent_size = kLongest;
    out.pushed = side(pushed);
    out.smooth = side(smooth);
    out.smooth_rest = side(smooth_rest);
    Events& events = out.events;
    events.capacity = capacity;
    events.written = side(written);
    events.lane = side(whole);
    events.group = events.lane + capacity;
    events.step = events.group + capacity;
    events.old_rate = side(real);
    events.new_rate = events.old_rate + capacity;
    events.metric = events.new_rate + capacity;
    events.best = events.metric + capacity;
    return out;
  }

  using Event = std::array<std::uint64_t, 7>;

  /// The bits of the events from the `first` on, sorted: within a step their order is free.
  std::vector<Event> events(const std::vector<std::int64_t>& from_whole,
                            const std::vector<double>& from_real, std::int64_t first) const {
    std::vector<Event> found;
    for (std::int64_t i = first; i < written.host[0]; ++i) {
      Event event{};
      for (std::int64_t field = 0; field < 7; ++field) {
        const std::int64_t row = field < 3 ? field : field - 3;
        const auto at = static_cast<std::size_t>(row * capacity + i % capacity);
        const void* value = field < 3 ? static_cast<const void*>(&from_whole[at]) : &from_real[at];
        std::memcpy(&event[static_cast<std::size_t>(field)], value, sizeof(std::uint64_t));
      }
      found.push_back(event);
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  void check(std::int64_t first) const {
    CHECK(flags.same());
    CHECK(age.same());
    CHECK(last_reduction.same());
    CHECK(at_min_steps.same());
    CHECK(total.same());
    CHECK(taken.same());
    CHECK(recent.same());
    CHECK(pushed.same());
    CHECK(smooth.same());
    CHECK(smooth_rest.same());
    CHECK(written.same());
    CHECK(events(whole.host, one_nan(real.host), first) ==
          events(whole.on_device(), one_nan(real.on_device()), first));
  }

  static constexpr std::int32_t kLongest = 4;
  Choice<std::uint8_t> on_nan, safe_gate, keras;
  Choice<std::int32_t> initial_patience, accumulate, window;
  Choice<double> smoothing;
  Choice<std::int32_t> max_reductions, patience_at_min, warmup_steps;
  Choice<double> warmup_start_factor;
  Twin<std::uint8_t> flags;
  Twin<std::int64_t> age, last_reduction;
  Twin<std::int32_t> at_min_steps;
  Twin<double> total;
  Twin<std::int32_t> taken;
  Twin<double> recent;
  Twin<std::int64_t> pushed;
  Twin<double> smooth, smooth_rest;
  Twin<std::int64_t> written, whole;
  Twin<double> real;
  std::int64_t capacity;
  Options host, device;
};

}  // namespace plateau
