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
#include "plateau/step.hpp"
#include "twins.hpp"

void test_replay();

namespace {

using namespace plateau;

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
  test_replay();
#ifdef threadIdx
  a_step_is_one_launch_on_the_device_and_stream_it_is_given();
  no_lanes_launch_nothing();
  a_call_that_fails_is_named_and_cleared_and_changes_nothing();
#endif
  std::printf("%d failures\n", failures);
  return failures != 0;
}
