// SPDX-License-Identifier: BSD-3-Clause
// The arithmetic of Adam and AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019; amsgrad: Reddi
// et al. 2018), as torch.optim's. What a row shares is worked out in double.
#pragma once

#include <cmath>
#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/settings.hpp"

namespace plateau {

/// base to the power of a whole number, by squaring: the same bits on every device, as pow() is
/// not.
PLATEAU_HD inline double power(double base, std::int64_t exponent) noexcept {
  double result = 1.0;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result *= base;
    base *= base;
  }
  return result;
}

struct Adam {
  static constexpr int kStates = 2;  // exp_avg, exp_avg_sq; with amsgrad also the largest of those

  Setting<double> lr, beta1, beta2, eps, weight_decay;  // `lr` is a factor of the lane's rate
  bool amsgrad = false;
  bool maximize = false;
  bool decoupled = true;

  PLATEAU_HD bool has_more() const noexcept { return amsgrad; }

  /// What all elements of a row share.
  template <class T>
  struct Row {
    T sign, decay, coupled, weight1, beta2, weight2, root, eps, size;
  };

  template <class T>
  PLATEAU_HD Row<T> row(std::int64_t lane, double rate, double step) const noexcept {
    const double lr_now = rate * lr[lane], decay = weight_decay[lane];
    const auto steps = static_cast<std::int64_t>(step);
    const double correction1 = 1.0 - power(beta1[lane], steps);
    const double correction2 = 1.0 - power(beta2[lane], steps);
    return {static_cast<T>(maximize ? -1.0 : 1.0),
            static_cast<T>(decoupled ? 1.0 - lr_now * decay : 1.0),
            static_cast<T>(decoupled ? 0.0 : decay),
            static_cast<T>(1.0 - beta1[lane]),
            static_cast<T>(beta2[lane]),
            static_cast<T>(1.0 - beta2[lane]),
            static_cast<T>(1.0 / std::sqrt(correction2)),
            static_cast<T>(eps[lane]),
            static_cast<T>(lr_now / correction1)};
  }

  template <bool kAmsgrad, class T>
  static PLATEAU_HD void move(const Row<T>& row, T& param, T grad, T& average, T& square,
                              T& largest) noexcept {
    grad *= row.sign;
    grad = row.coupled != T(0) ? grad + row.coupled * param : grad;
    param *= row.decay;
    average += row.weight1 * (grad - average);
    square = square * row.beta2 + row.weight2 * grad * grad;
    if constexpr (kAmsgrad) largest = square <= largest ? largest : square;  // NaN comes through
    const T root = std::sqrt(kAmsgrad ? largest : square) * row.root + row.eps;
    param -= row.size * average / root;
  }
};

}  // namespace plateau
