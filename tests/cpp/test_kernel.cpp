// SPDX-License-Identifier: BSD-3-Clause
// The kernels against the host loop, bit for bit. Built twice: with tests/cpp/emulation in place of
// CUDA, for machines without a GPU, and with CUDA, as test_kernel_device, for those that have one.
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <limits>
#include <vector>

#include "check.hpp"
#include "drawn.hpp"
#include "plateau/step.hpp"
#include "twins.hpp"

void test_optim();
void test_replay();
void test_launches();

namespace {

using namespace plateau;

/// How metrics lie in memory: as values of `dtype`, `stride` apart, `shift` elements off a
/// boundary.
struct Layout {
  Dtype dtype;
  std::int64_t stride = 1;
  std::size_t shift = 0;
};

/// Steps lanes of type B on both sides. Returns how many cuts there were.
template <class B, class M>
std::int64_t compare(const Draw& draw, const Layout& layout, const std::vector<M>& values,
                     bool masked = false, int steps = 2) {
  Twins<B> twins(drawn<B>(draw));
  const std::int64_t length = draw.form.n * std::abs(layout.stride);
  const std::int64_t first = layout.stride < 0 ? length - 1 : 0;
  std::int64_t before = 0, after = 0;
  for (const std::int32_t count : twins.host.state.num_reductions) before += count;
  for (int step = 0; step < steps; ++step) {
    const Twin<M> metrics(some(length, values), layout.shift);
    const Twin<std::uint8_t> mask(some<std::uint8_t>(draw.form.n, {0, 1, 255}));
    twins.step(metrics, layout.dtype, layout.stride, first, masked ? &mask : nullptr);
  }
  for (const std::int32_t count : twins.host.state.num_reductions) after += count;
  return after - before;
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
const std::vector<float> kFloats = {1.0F, 0.5F, 0.75F, -1.0F, 0.25F, kNan, kInf};
const std::vector<double> kDoubles = {1.0, 0.1, 0.75, -1.0, 0.25, kNan, -kInf};
const Layout k32{Dtype::kFloat32}, k64{Dtype::kFloat64};

void any_number_of_lanes_is_stepped_as_on_the_host() {
  std::int64_t cuts = 0;
  for (const Each each : {Each::kNone, Each::kAll, Each::kFew}) {
    for (const std::int64_t n : {1, 2, 255, 256, 257, 1000}) {
      cuts += compare<float>({{n}, each}, k32, kFloats);
      cuts += compare<double>({{n}, each}, k64, kDoubles);
      cuts += compare<double>({{n}, each}, k32, kFloats);
    }
  }
  CHECK(cuts > 1000);
}

constexpr std::int64_t kMany = (1 << 18) + 3;  // taken four at a time, with a rest

void many_lanes_are_stepped_as_on_the_host() {
  for (const Each each : {Each::kNone, Each::kAll}) {
    const Draw draw{{kMany}, each};
    compare<float>(draw, k32, kFloats, false, 1);
    compare<double>(draw, k64, kDoubles, false, 1);
    compare<double>(draw, k32, kFloats, false, 1);
    compare<float>(draw, {Dtype::kFloat32, 1, 1}, kFloats, false, 1);  // off a boundary
    compare<double>(draw, {Dtype::kFloat64, 1, 1}, kDoubles, false, 1);
  }
}

void strides_and_misaligned_metrics_are_read() {
  for (const std::int64_t stride : {2, 3, -1, -2}) {
    compare<float>({{300}}, {Dtype::kFloat32, stride}, kFloats);
    compare<double>({{300}, Each::kAll}, {Dtype::kFloat64, stride, 1}, kDoubles);
  }
  compare<double>({{300}, Each::kAll}, {Dtype::kFloat32, 1, 3}, kFloats);
}

template <class B, class M>
void compare_dtype(Dtype dtype, const std::vector<M>& values) {
  compare<B>({{300}, Each::kAll}, {dtype}, values);
}

void metrics_of_every_dtype_are_read() {
  compare_dtype<double, std::uint8_t>(Dtype::kBool, {0, 1, 255});
  compare_dtype<float, std::uint8_t>(Dtype::kBool, {0, 1});
  compare_dtype<float, std::int8_t>(Dtype::kInt8, {-128, 127, 0, -1});
  compare_dtype<float, std::int16_t>(Dtype::kInt16, {-32768, 32767, 0, 1});
  compare_dtype<double, std::int32_t>(Dtype::kInt32, {INT32_MIN, INT32_MAX, 0});
  compare_dtype<double, std::int64_t>(Dtype::kInt64, {INT64_MIN, INT64_MAX, 0});
  compare_dtype<float, std::uint8_t>(Dtype::kUInt8, {0, 255, 1});
  compare_dtype<float, std::uint16_t>(Dtype::kUInt16, {0, 65535, 1});
  compare_dtype<double, std::uint32_t>(Dtype::kUInt32, {0, UINT32_MAX, 1});
  compare_dtype<double, std::uint64_t>(Dtype::kUInt64, {0, UINT64_MAX, (1ULL << 63) + 1025});
  const std::vector<std::uint16_t> bits = {0x3C00, 0x8000, 0x0001, 0x7BFF, 0xFC00, 0x7E00, 0x3555};
  compare_dtype<float>(Dtype::kFloat16, bits);
  compare_dtype<double>(Dtype::kBFloat16, bits);
}

/// Counts of rates for which blocks take one lane, a few, and as many as they may.
const std::vector<std::vector<std::int64_t>> kCounts = {{1},
                                                        {3, 0, 1, 2},
                                                        {0, 0, 5, 0},
                                                        {10000},
                                                        {2000, 1, 0, 3000, 1, 4000},
                                                        std::vector<std::int64_t>(700, 2),
                                                        std::vector<std::int64_t>(300, 40),
                                                        {0}};

Form owning(const std::vector<std::int64_t>& counts) {
  return {static_cast<std::int64_t>(counts.size()), counts};
}

void lanes_may_own_any_number_of_rates() {
  for (const auto& counts : kCounts) {
    for (const Each each : {Each::kNone, Each::kAll}) {
      compare<float>({owning(counts), each}, k32, kFloats);
      compare<double>({owning(counts), each}, {Dtype::kFloat64, 2}, kDoubles);
    }
  }
}

void lanes_with_optional_parts_are_stepped_as_on_the_host() {
  const std::vector<std::int64_t> counts = {3, 0, 1, 40, 2, 2, 2, 900, 1};
  std::int64_t cuts = 0;
  for (int round = 0; round < 12; ++round) {
    const Each each = round % 3 == 0 ? Each::kNone : round % 3 == 1 ? Each::kAll : Each::kFew;
    const bool masked = round < 3;
    for (Form form : {Form{300}, Form{1000}, owning(counts)}) {
      form.events = round % 4 ? form.groups() + round % 5 : 0;
      cuts += compare<double>({form, each, true}, k64, kDoubles, masked, 3);
      cuts += compare<float>({form, each, true}, k32, kFloats, masked, 3);
      compare<double>({form, each, false}, k64, kDoubles, true);
    }
  }
  CHECK(cuts > 1000);
}

void lanes_with_parts_that_most_have_are_stepped_as_on_the_host() {
  std::int64_t cuts = 0;
  for (int round = 0; round < 24; ++round) {
    const Each each = round % 3 == 0 ? Each::kNone : round % 3 == 1 ? Each::kAll : Each::kFew;
    const bool masked = round % 4 == 0;
    const Draw draw{{round % 2 ? 300 : 20}, each, true, kPlateau, true};
    cuts += compare<double>(draw, k64, kDoubles, masked, 3);
    cuts += compare<double>(draw, k32, kFloats, masked, 3);
    cuts += compare<double>(draw, {Dtype::kFloat64, 2}, kDoubles, masked, 3);
    cuts += compare<float>(draw, k32, kFloats, masked, 3);
    cuts += compare<float>(draw, {Dtype::kFloat32, -1}, kFloats, masked, 3);
  }
  CHECK(cuts > 1000);
}

void lanes_whose_rates_may_rise_are_stepped_as_on_the_host() {
  std::int64_t raises = 0;
  for (const Rule rule : {kBand, kGreedy}) {
    for (const Form& form : {Form{300}, owning({3, 0, 1, 40, 2, 2, 2, 900, 1})}) {
      for (const Each each : {Each::kNone, Each::kAll, Each::kFew}) {
        Draw draw{form, each, true};
        draw.rule = rule;
        Twins<double> twins(drawn<double>(draw));
        const auto raised = [&] {
          std::int64_t count = 0;
          for (const std::int32_t some : twins.host.state.num_increases) count += some;
          return count;
        };
        const std::int64_t before = raised();
        for (int step = 0; step < 8; ++step) {
          twins.step(Twin<double>(some(form.n, kDoubles)), Dtype::kFloat64);
        }
        raises += raised() - before;
      }
    }
  }
  CHECK(raises > 100);
}

void lanes_with_some_settings_of_their_own_are_stepped_as_on_the_host() {
  for (int round = 0; round < 4; ++round) {
    compare<float>({{300}, Each::kFew}, k32, kFloats);
    compare<double>({{300}, Each::kFew}, {Dtype::kFloat64, 2}, kDoubles);
    compare<float>({{kMany}, Each::kFew}, k32, kFloats, false, 1);
  }
  compare<double>({{300}}, {Dtype::kFloat64, 2}, kDoubles);
}

}  // namespace

int main() {
  any_number_of_lanes_is_stepped_as_on_the_host();
  many_lanes_are_stepped_as_on_the_host();
  strides_and_misaligned_metrics_are_read();
  metrics_of_every_dtype_are_read();
  lanes_may_own_any_number_of_rates();
  lanes_with_optional_parts_are_stepped_as_on_the_host();
  lanes_with_parts_that_most_have_are_stepped_as_on_the_host();
  lanes_whose_rates_may_rise_are_stepped_as_on_the_host();
  lanes_with_some_settings_of_their_own_are_stepped_as_on_the_host();
  test_replay();
  test_optim();
#ifdef PLATEAU_EMULATION  // which counts launches and fails to order
  test_launches();
#endif
  std::printf("%d failures\n", failures);
  return failures != 0;
}
