// SPDX-License-Identifier: BSD-3-Clause
// The kernels against the host loop, bit for bit. Built twice: with tests/cpp/emulation in place of
// CUDA, for machines without a GPU, and with CUDA, as test_kernel_device, for those that have one.
#include <cuda_runtime.h>

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

  /// Whether the device holds the same bits as the host.
  bool same() const {
    return host.empty() ||
           std::memcmp(on_device().data(), host.data(), host.size() * sizeof(T)) == 0;
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

#ifdef threadIdx  // only the emulation counts launches and fails to order

void a_step_is_one_launch_on_the_device_and_stream_it_is_given() {
  int target = 0;
  for (const bool grouped : {false, true}) {
    Pair<float> pair(3, true,
                     grouped ? std::vector<std::int64_t>{1, 2, 3} : std::vector<std::int64_t>{});
    const Twin<float> metrics({1.0F, 2.0F, 3.0F});
    emulation::launches = 0;
    step_cuda(pair.device, Metrics{metrics.device, 1, Dtype::kFloat32}, 1, &target);
    CHECK(emulation::launches == 1);
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
#ifdef threadIdx
  a_step_is_one_launch_on_the_device_and_stream_it_is_given();
  no_lanes_launch_nothing();
  a_call_that_fails_is_named_and_cleared_and_changes_nothing();
#endif
  std::printf("%d failures\n", failures);
  return failures != 0;
}
