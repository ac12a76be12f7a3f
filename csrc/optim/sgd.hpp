// SPDX-License-Identifier: BSD-3-Clause
// The arithmetic of SGD with momentum, as torch.optim's: the first gradient becomes the buffer.
#pragma once

#include <cstdint>

#include "plateau/config.hpp"
#include "plateau/settings.hpp"

namespace plateau {

struct Sgd {
  static constexpr int kStates = 0;  // with momentum there is a buffer

  Setting<double> lr, momentum, dampening, weight_decay;  // `lr` is a factor of the lane's rate
  bool has_momentum = false;
  bool maximize = false;
  bool nesterov = false;

  PLATEAU_HD bool has_more() const noexcept { return has_momentum; }

  /// What all elements of a row share.
  template <class T>
  struct Row {
    T sign, decay, keep, take, momentum, size;
    bool nesterov;
  };

  /// `step` counts this one. A lane of which the momentum is 0 has no dampening either.
  template <class T>
  PLATEAU_HD Row<T> row(std::int64_t lane, double rate, double step) const noexcept {
    const double kept = momentum[lane];
    const bool first = step < 2 || kept == 0;
    return {static_cast<T>(maximize ? -1.0 : 1.0),
            static_cast<T>(weight_decay[lane]),
            static_cast<T>(first ? 0.0 : kept),
            static_cast<T>(first ? 1.0 : 1.0 - dampening[lane]),
            static_cast<T>(kept),
            static_cast<T>(rate * lr[lane]),
            nesterov};
  }

  template <bool kMomentum, class T>
  static PLATEAU_HD void move(const Row<T>& row, T& param, T grad, T& buffer, T&, T&) noexcept {
    grad *= row.sign;
    grad = row.decay != T(0) ? grad + row.decay * param : grad;
    if constexpr (kMomentum) {
      buffer = row.keep * buffer + row.take * grad;
      grad = row.nesterov ? grad + row.momentum * buffer : buffer;
    }
    param -= row.size * grad;
  }
};

}  // namespace plateau
