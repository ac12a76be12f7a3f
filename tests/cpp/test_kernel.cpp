// SPDX-License-Identifier: BSD-3-Clause
// The kernels against the host loop, bit for bit. Built twice: with tests/cpp/emulation in place of
// CUDA, for machines without a GPU, and with CUDA, as test_kernel_device, for those that have one.
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "plateau/rule.hpp"
#include "plateau/step.hpp"

namespace {

using namespace plateau;

std::mt19937 noise(7);

int below(int limit) { return static_cast<int>(noise() % static_cast<unsigned>(limit)); }

void must(cudaError_t status) {
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

template <class T, class M>
void compare(std::int64_t n, bool each, Dtype dtype, std::initializer_list<M> values,
             std::int64_t stride = 1, std::size_t shift = 0,
             const std::vector<std::int64_t>& counts = {}, int steps = 4) {
  Pair<T> pair(n, each, counts);
  const std::int64_t length = n * (stride < 0 ? -stride : stride);
  const std::int64_t first = stride < 0 ? length - 1 : 0;
  for (int step = 0; step < steps; ++step) {
    const Twin<M> metrics(some<M>(length, values), shift);
    pair.step(metrics.host.data() + first, metrics.device + first, stride, dtype);
  }
}

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

/// Steps lanes with optional parts, some of them masked, and returns how many cuts were recorded.
template <class T>
std::int64_t compare_options(std::int64_t n, bool each, bool all, bool masked,
                             std::initializer_list<T> values,
                             const std::vector<std::int64_t>& counts = {}) {
  Pair<T> pair(n, each, counts);
  Parts parts(n, pair.groups, each, all);
  for (int step = 0; step < 6; ++step) {
    const Twin<T> metrics(some<T>(n, values));
    const Twin<std::uint8_t> mask(some<std::uint8_t>(n, {0, 1, 1}));
    const std::int64_t first = parts.written.host[0];
    const Dtype dtype = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
    step_cpu(pair.host, parts.host, Metrics{metrics.host.data(), 1, dtype},
             masked ? mask.host.data() : nullptr);
    step_cuda(pair.device, parts.device, Metrics{metrics.device, 1, dtype},
              masked ? mask.device : nullptr, 0, nullptr);
    pair.check();
    parts.check(first);
  }
  return parts.written.host[0];
}

const std::initializer_list<float> kFloats = {1.0F,
                                              0.5F,
                                              0.75F,
                                              -1.0F,
                                              0.25F,
                                              std::numeric_limits<float>::quiet_NaN(),
                                              std::numeric_limits<float>::infinity()};
const std::initializer_list<double> kDoubles = {
    1.0, 0.1, 0.75, -1.0, 0.25, std::numeric_limits<double>::quiet_NaN()};

void any_number_of_lanes_is_stepped_as_on_the_host() {
  for (const bool each : {false, true}) {
    for (const std::int64_t n : {1, 2, 255, 256, 257, 1000}) {
      compare<float, float>(n, each, Dtype::kFloat32, kFloats);
      compare<double, double>(n, each, Dtype::kFloat64, kDoubles);
    }
  }
}

constexpr std::int64_t kMany = (1 << 18) + 3;  // taken four at a time, with a rest

void many_lanes_are_stepped_as_on_the_host() {
  for (const bool each : {false, true}) {
    compare<float, float>(kMany, each, Dtype::kFloat32, kFloats, 1, 0, {}, 2);
    compare<double, double>(kMany, each, Dtype::kFloat64, kDoubles, 1, 0, {}, 2);
    compare<double, float>(kMany, each, Dtype::kFloat32, kFloats, 1, 0, {}, 2);
  }
  compare<float, float>(kMany, true, Dtype::kFloat32, kFloats, 1, 1, {}, 2);  // misaligned
}

void strides_and_misaligned_metrics_are_read() {
  for (const std::int64_t stride : {2, 3, -1, -2}) {
    compare<float, float>(300, false, Dtype::kFloat32, kFloats, stride);
    compare<double, double>(300, true, Dtype::kFloat64, kDoubles, stride, 1);
  }
  compare<double, float>(300, true, Dtype::kFloat32, kFloats, 1, 3);
}

void metrics_of_every_dtype_are_read() {
  compare<double, std::uint8_t>(300, true, Dtype::kBool, {0, 1, 255});
  compare<float, std::uint8_t>(300, true, Dtype::kBool, {0, 1});
  compare<float, std::int8_t>(300, true, Dtype::kInt8, {-128, 127, 0, -1});
  compare<float, std::int16_t>(300, true, Dtype::kInt16, {-32768, 32767, 0, 1});
  compare<double, std::int32_t>(300, true, Dtype::kInt32, {INT32_MIN, INT32_MAX, 0});
  compare<double, std::int64_t>(300, true, Dtype::kInt64, {INT64_MIN, INT64_MAX, 0});
  compare<float, std::uint8_t>(300, true, Dtype::kUInt8, {0, 255, 1});
  compare<float, std::uint16_t>(300, true, Dtype::kUInt16, {0, 65535, 1});
  compare<double, std::uint32_t>(300, true, Dtype::kUInt32, {0, UINT32_MAX, 1});
  compare<double, std::uint64_t>(300, true, Dtype::kUInt64, {0, UINT64_MAX, (1ULL << 63) + 1025});
  const std::initializer_list<std::uint16_t> bits = {0x3C00, 0x8000, 0x0001, 0x7BFF,
                                                     0xFC00, 0x7E00, 0x3555};
  compare<float, std::uint16_t>(300, true, Dtype::kFloat16, bits);
  compare<double, std::uint16_t>(300, true, Dtype::kBFloat16, bits);
}

void lanes_may_own_any_number_of_rates() {
  const std::vector<std::vector<std::int64_t>> all_counts = {{1},
                                                             {3, 0, 1, 2},
                                                             {0, 0, 5, 0},
                                                             {10000},
                                                             {2000, 1, 0, 3000, 1, 4000},
                                                             std::vector<std::int64_t>(700, 2),
                                                             std::vector<std::int64_t>(300, 40),
                                                             {0}};
  for (const auto& counts : all_counts) {
    for (const bool each : {false, true}) {
      const auto n = static_cast<std::int64_t>(counts.size());
      compare<float, float>(n, each, Dtype::kFloat32, kFloats, 1, 0, counts);
      compare<double, double>(n, each, Dtype::kFloat64, kDoubles, 2, 0, counts);
    }
  }
}

void lanes_with_optional_parts_are_stepped_as_on_the_host() {
  const std::vector<std::int64_t> counts = {3, 0, 1, 40, 2, 2, 2, 900, 1};
  const auto n = static_cast<std::int64_t>(counts.size());
  std::int64_t cuts = 0;
  for (int round = 0; round < 4; ++round) {
    const bool each = round != 1;
    const bool masked = round != 2;
    cuts += compare_options<double>(300, each, round != 3, masked, kDoubles);
    cuts += compare_options<double>(n, each, round != 3, masked, kDoubles, counts);
  }
  // averages need float64 lanes, so here all parts are missing
  compare_options<float>(300, true, false, true, kFloats);
  compare_options<float>(n, true, false, true, kFloats, counts);
  CHECK(cuts > 100);
}

#ifdef threadIdx  // only the emulation counts launches and fails to order

void a_step_is_one_launch_on_the_device_and_stream_it_is_given() {
  int target = 0;
  for (const bool grouped : {false, true}) {
    Pair<float> pair(3, true,
                     grouped ? std::vector<std::int64_t>{1, 2, 3} : std::vector<std::int64_t>{});
    Parts parts(3, pair.groups, true, true);
    const Twin<float> metrics({1.0F, 2.0F, 3.0F});
    emulation::launches = 0;
    step_cuda(pair.device, Metrics{metrics.device, 1, Dtype::kFloat32}, 1, &target);
    step_cuda(pair.device, parts.device, Metrics{metrics.device, 1, Dtype::kFloat32}, nullptr, 1,
              &target);
    CHECK(emulation::launches == 2);
    CHECK(emulation::stream == &target);
    CHECK(emulation::launched_on == 1);
    CHECK(emulation::device == 0);
  }
}

void no_lanes_launch_nothing() {
  emulation::launches = 0;
  compare<float, float>(0, false, Dtype::kFloat32, kFloats);
  CHECK(emulation::launches == 0);
}

template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

void a_call_that_fails_is_named_and_cleared_and_changes_nothing() {
  Pair<double> pair(3, false, {});
  const Twin<double> metrics({-1.0, -2.0, -3.0});
  for (int call = 0; call < 2; ++call) {
    emulation::failing = 3;
    const std::string message = message_of([&] {
      call ? prepare_cuda(1)
           : step_cuda(pair.device, Metrics{metrics.device, 1, Dtype::kFloat64}, 1, nullptr);
    });
    CHECK(message.find(call ? "cudaFuncGetAttributes(" : "cudaLaunchKernel(") == 0);
    CHECK(message.find("cudaErrorEmulated, made to fail") != std::string::npos);
    CHECK(emulation::failing == 0);
    CHECK(emulation::device == 0);
  }
  CHECK(pair.best.same() && pair.clock.same() && pair.num_steps.same());
  emulation::failing = 3;
  CHECK(cuda_device_count() == 0);
  CHECK(emulation::failing == 0);
  CHECK(cuda_device_count() == 2);
}

#endif

}  // namespace

int main() {
  any_number_of_lanes_is_stepped_as_on_the_host();
  many_lanes_are_stepped_as_on_the_host();
  strides_and_misaligned_metrics_are_read();
  metrics_of_every_dtype_are_read();
  lanes_may_own_any_number_of_rates();
  lanes_with_optional_parts_are_stepped_as_on_the_host();
#ifdef threadIdx
  a_step_is_one_launch_on_the_device_and_stream_it_is_given();
  no_lanes_launch_nothing();
  a_call_that_fails_is_named_and_cleared_and_changes_nothing();
#endif
  std::printf("%d failures\n", failures);
  return failures != 0;
}
