// SPDX-License-Identifier: BSD-3-Clause
// The optimizers' kernels against the host loop, bit for bit.
#include <cstdint>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "check.hpp"
#include "drawn.hpp"
#include "optim/adam.hpp"
#include "optim/sgd.hpp"
#include "optim/update.hpp"
#include "twins.hpp"

void test_optim();

namespace {

using namespace plateau;

constexpr std::int64_t kLanes = 5;

/// A stacked parameter of type P with all that belongs to it, on both sides.
template <class P>
struct Tensor {
  using T = Wide<P>;
  explicit Tensor(std::int64_t width)
      : width(width),
        param(numbers<P>(width, {1.0, -2.5, 0.125, 3e-5, 0.0})),
        grad(numbers<P>(width, {0.5, -1.0, 0.0, 7.0, 1e-3, -3e-6})),
        states{Twin<T>(numbers<T>(width, {0.25, -0.5, 0.0, 1e-4})),
               Twin<T>(numbers<T>(width, {0.25, 2.0, 0.0, 1e-8})),
               Twin<T>(numbers<T>(width, {0.5, 1.0, 0.0, 1e-6}))},
        step(some<float>(kLanes, {0, 1, 2, 99, 5000})) {}

  template <class U>
  static std::vector<U> numbers(std::int64_t width, const std::vector<double>& choices) {
    std::vector<U> values;
    for (const double each : some(kLanes * width, choices)) {
      values.push_back(narrow<U>(static_cast<Wide<U>>(each)));
    }
    return values;
  }

  Stacked side(bool on_device) {
    Stacked tensor;
    tensor.param = param.side(on_device);
    tensor.grad = grad.side(on_device);
    for (int i = 0; i < kMostStates; ++i) tensor.state[i] = states[i].side(on_device);
    tensor.step = step.side(on_device);
    tensor.width = width;
    return tensor;
  }

  template <class U>
  static bool same(const Twin<U>& twin) {
    const std::vector<U> device = twin.device.read();
    return std::memcmp(twin.host.data(), device.data(), device.size() * sizeof(U)) == 0;
  }
  bool same() const {
    return same(param) && same(grad) && same(step) && same(states[0]) && same(states[1]) &&
           same(states[2]);
  }

  std::int64_t width;
  Twin<P> param, grad;
  Twin<T> states[kMostStates];
  Twin<float> step;
};

/// Lanes of which one is finished and one was written to, on both sides.
struct Rates {
  Twin<double> rate{{0.1, 1e-3, 0.5, 0.25, 3e-2}};
  Twin<float> published{{0.1F, 1e-3F, 0.75F, 0.25F, 3e-2F}};
  Twin<std::uint8_t> flags{{0, kAtMin, 0, kFinished, kOnceFired}};
  Twin<float> scale{{4.0F}};
  Twin<float> found{{0.0F}};

  template <class Kind>
  Update<Kind> side(const Kind& kind, bool scaled, bool on_device) {
    Update<Kind> update;
    update.kind = kind;
    update.n = kLanes;
    update.rate = rate.side(on_device);
    update.published = published.side(on_device);
    update.flags = flags.side(on_device);
    if (scaled) update.grad_scale = scale.side(on_device);
    if (scaled) update.found_inf = found.side(on_device);
    return update;
  }
};

/// Values for each lane of a setting, on both sides; one for all without.
struct Each {
  explicit Each(std::vector<double> each) : values(std::move(each)) {}
  Setting<double> side(bool each, bool on_device) {
    return {each ? values.side(on_device) : nullptr, values.host[0]};
  }

  Twin<double> values;
};

struct Chosen {
  Each lr{{1.0, 0.5, 1.0, 2.0, 0.25}};
  Each beta1{{0.9, 0.0, 0.5, 0.99, 0.8}};
  Each beta2{{0.999, 0.9, 0.99, 0.5, 0.95}};
  Each eps{{1e-8, 1e-3, 1e-6, 1e-8, 0.1}};
  Each decay{{0.01, 0.0, 0.5, 0.1, 0.2}};

  Adam adam(bool each, int round, bool on_device) {
    Adam kind;
    kind.lr = lr.side(each, on_device);
    kind.beta1 = beta1.side(each, on_device);
    kind.beta2 = beta2.side(each, on_device);
    kind.eps = eps.side(each, on_device);
    kind.weight_decay = decay.side(each, on_device);
    kind.amsgrad = round & 1;
    kind.maximize = round & 2;
    kind.decoupled = round & 4;
    return kind;
  }
  Sgd sgd(bool each, int round, bool on_device) {
    Sgd kind;
    kind.lr = lr.side(each, on_device);
    kind.momentum = beta1.side(each, on_device);
    kind.dampening = decay.side(each, on_device);
    kind.weight_decay = eps.side(each, on_device);
    kind.has_momentum = round & 1;
    kind.maximize = round & 2;
    kind.nesterov = round & 4;
    return kind;
  }
};

template <class P, class Kind>
void compare(Dtype dtype, Rates& rates, const Kind& here, const Kind& there, bool scaled) {
  std::deque<Tensor<P>> tensors;
  for (const std::int64_t width : {1, 3, 40, 5000}) tensors.emplace_back(width);
  for (int step = 0; step < 1; ++step) {
    std::vector<Stacked> host, device;
    for (Tensor<P>& tensor : tensors) {
      host.push_back(tensor.side(false));
      device.push_back(tensor.side(true));
    }
    update_cpu(rates.side(here, scaled, false), host, dtype, 3);
    update_cuda(rates.side(there, scaled, true), device, dtype, 0, nullptr);
  }
  for (const auto& tensor : tensors) CHECK(tensor.same());
}

template <class P>
void compare_all(Dtype dtype) {
  Rates rates;
  Chosen chosen;
  for (int round = 0; round < 8; ++round) {
    const bool each = round % 3 > 0, scaled = round % 2 > 0;
    compare<P>(dtype, rates, chosen.adam(each, round, false), chosen.adam(each, round, true),
               scaled);
    compare<P>(dtype, rates, chosen.sgd(each, round, false), chosen.sgd(each, round, true), scaled);
  }
}

void the_kernels_compute_what_the_host_does() {
  compare_all<double>(Dtype::kFloat64);
  compare_all<float>(Dtype::kFloat32);
  compare_all<BFloat>(Dtype::kBFloat16);
  compare_all<Half>(Dtype::kFloat16);
}

void finished_lanes_and_steps_with_found_inf_are_not_computed() {
  Rates rates;
  Chosen chosen;
  Tensor<float> tensor(7);
  const std::vector<float> before = tensor.param.device.read();
  const std::vector<float> steps = tensor.step.device.read();
  update_cuda(rates.side(chosen.adam(true, 0, true), true, true), {tensor.side(true)},
              Dtype::kFloat32, 0, nullptr);
  const std::vector<float> after = tensor.param.device.read();
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    const bool moved = std::memcmp(&before[lane * 7], &after[lane * 7], 7 * sizeof(float)) != 0;
    CHECK(moved == (lane != 3));
    CHECK(tensor.step.device.read()[lane] == steps[lane] + static_cast<float>(lane != 3));
  }
  const Array<float> inf(std::vector<float>{1.0F});
  auto update = rates.side(chosen.adam(true, 0, true), true, true);
  update.found_inf = inf.data();
  update_cuda(update, {tensor.side(true)}, Dtype::kFloat32, 0, nullptr);
  CHECK(tensor.param.device.read() == after);
}

void more_tensors_than_a_launch_takes_are_all_updated() {
  Rates rates;
  Chosen chosen;
  std::deque<Tensor<float>> tensors;
  std::vector<Stacked> host, device;
  for (int i = 0; i < 130; ++i) {
    Tensor<float>& tensor = tensors.emplace_back(i % 5 + 1);
    host.push_back(tensor.side(false));
    device.push_back(tensor.side(true));
  }
  update_cpu(rates.side(chosen.adam(true, 1, false), false, false), host, Dtype::kFloat32, 1);
  update_cuda(rates.side(chosen.adam(true, 1, true), false, true), device, Dtype::kFloat32, 0,
              nullptr);
  for (const auto& tensor : tensors) CHECK(tensor.same());
}

}  // namespace

void test_optim() {
  the_kernels_compute_what_the_host_does();
  finished_lanes_and_steps_with_found_inf_are_not_computed();
  more_tensors_than_a_launch_takes_are_all_updated();
}
