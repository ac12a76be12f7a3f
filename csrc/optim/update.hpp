// SPDX-License-Identifier: BSD-3-Clause
// A step of an optimizer over stacked parameters: a row of each tensor belongs to a lane, which has
// its own rate, settings and count of steps. `Kind` is the arithmetic: Adam or Sgd.
//
//     count_steps: step += 1                                  of the lanes that move
//     update:      param, grad, state = Kind(row, ...)        of their rows, element by element
//
// A lane moves unless it is finished, and none does where `found_inf` says so.
#pragma once

#include <cstdint>
#include <vector>

#include "optim/narrow.hpp"
#include "plateau/config.hpp"
#include "plateau/rule.hpp"
#include "plateau/state.hpp"
#include "plateau/types.hpp"

namespace plateau {

constexpr int kMostStates = 3;  // arrays that an optimizer remembers of a parameter

/// A parameter, its gradient and what its optimizer remembers: contiguous, [n, width] each. The
/// first two hold the parameter's type, the states what that is computed in.
struct Stacked {
  void* param = nullptr;
  void* grad = nullptr;
  void* state[kMostStates] = {};
  float* step = nullptr;  ///< of each lane, [n]; null where nothing depends on it
  std::int64_t width = 0;
};

/// What all tensors of a step share. Pointers may be null but for the rates.
template <class Kind>
struct Update {
  Kind kind;
  std::int64_t n = 0;
  const double* rate = nullptr;         ///< of each lane, the master
  const float* published = nullptr;     ///< of each lane, what others may have written
  const std::uint8_t* flags = nullptr;  ///< of each lane
  const float* grad_scale = nullptr;    ///< what gradients were multiplied by
  const float* found_inf = nullptr;     ///< not 0: nobody moves

  PLATEAU_HD bool is_skipped() const noexcept { return found_inf && *found_inf != 0; }
  PLATEAU_HD bool moves(std::int64_t lane) const noexcept {
    return !(flags && flags[lane] & kFinished);
  }
  /// What the elements of a lane's row of `tensor` share.
  template <class T>
  PLATEAU_HD typename Kind::template Row<T> row(const Stacked& tensor,
                                                std::int64_t lane) const noexcept {
    const double step = tensor.step ? static_cast<double>(tensor.step[lane]) : 0;
    return kind.template row<T>(lane, current_rate(rate[lane], published[lane]), step);
  }
  template <class T>
  PLATEAU_HD T unscale() const noexcept {
    return static_cast<T>(1.0 / static_cast<double>(*grad_scale));
  }
};

/// What a thread, or a block of them, takes at once: part of a row, or several short rows.
struct Piece {
  std::int64_t row;    ///< the first
  int rows;            ///< 1 where it is part of a row
  std::int64_t first;  ///< element of that row
  int size;            ///< elements, of all rows
};
constexpr std::int64_t kPieceSize = 4096;  // on a device; the host takes more
constexpr std::int64_t kPieceRows = 256;

/// How tensors of one width are cut into pieces.
struct Pieces {
  PLATEAU_HD Pieces(std::int64_t n, std::int64_t width, std::int64_t size = kPieceSize)
      : n(n), width(width), size(size) {
    const std::int64_t fit = size / width;
    rows = fit < 1 ? 1 : fit > kPieceRows ? kPieceRows : fit;
    per_row = fit < 1 ? (width + size - 1) / size : 1;
  }
  PLATEAU_HD std::int64_t count() const {
    return per_row > 1 ? n * per_row : (n + rows - 1) / rows;
  }
  PLATEAU_HD Piece at(std::int64_t i) const {
    if (per_row > 1) {
      const std::int64_t first = i % per_row * size, rest = width - first;
      return {i / per_row, 1, first, static_cast<int>(rest < size ? rest : size)};
    }
    const std::int64_t row = i * rows, rest = n - row;
    const auto taken = static_cast<int>(rest < rows ? rest : rows);
    return {row, taken, 0, static_cast<int>(taken * width)};
  }

  std::int64_t n, width, size, rows, per_row;
};

/// A gradient as it stands in memory once the scale is taken out, as torch's fused optimizers leave
/// it.
template <class P>
PLATEAU_HD inline P unscaled(P grad, Wide<P> unscale) noexcept {
  return narrow<P>(widen(grad) * unscale);
}

struct Adam;
struct Sgd;

/// @brief Step on the host, on up to `threads` threads. `dtype` is that of the parameters: float16,
/// bfloat16, float32 or float64. Widths are above 0.
void update_cpu(const Update<Adam>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                int threads) noexcept;
void update_cpu(const Update<Sgd>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                int threads) noexcept;

/// @brief The same on a CUDA device: for up to 60 tensors one launch, and a small one before it
/// where steps are counted. Every pointer must be of memory on `device`. Ordered by `stream`, which
/// may be capturing; nothing waits.
/// @throw std::runtime_error if a CUDA call fails, naming it. Always, where the module was built
/// without CUDA.
void update_cuda(const Update<Adam>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                 int device, void* stream);
void update_cuda(const Update<Sgd>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                 int device, void* stream);

}  // namespace plateau
