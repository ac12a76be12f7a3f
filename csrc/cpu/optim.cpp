// SPDX-License-Identifier: BSD-3-Clause
// The host loops of the optimizers: pieces of rows, dealt out to threads, each in one vector pass.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include "cpu/threads.hpp"
#include "cpu/vector.hpp"
#include "optim/adam.hpp"
#include "optim/sgd.hpp"
#include "optim/update.hpp"

namespace plateau {
namespace {

constexpr std::int64_t kWork = 1 << 16;   // elements that are worth a thread
constexpr std::int64_t kPiece = 1 << 15;  // that a thread takes at once: fewer ends of loops

#if defined(_MSC_VER)
#define PLATEAU_RESTRICT __restrict
#else
#define PLATEAU_RESTRICT __restrict__
#endif

template <class P>
PLATEAU_INLINE void unscale(P* PLATEAU_RESTRICT grads, int count, Wide<P> factor) {
  for (int i = 0; i < count; ++i) grads[i] = unscaled(grads[i], factor);
}

template <class Kind, bool kMore, class P, class T = Wide<P>>
PLATEAU_INLINE void move_row(const typename Kind::template Row<T> row, P* PLATEAU_RESTRICT params,
                             const P* PLATEAU_RESTRICT grads, T* PLATEAU_RESTRICT first,
                             T* PLATEAU_RESTRICT second, T* PLATEAU_RESTRICT third, int count) {
  constexpr int kStates = Kind::kStates + kMore;
  for (int i = 0; i < count; ++i) {
    T param = widen(params[i]), one{}, two{}, three{};
    if constexpr (kStates > 0) one = first[i];
    if constexpr (kStates > 1) two = second[i];
    if constexpr (kStates > 2) three = third[i];
    Kind::template move<kMore>(row, param, widen(grads[i]), one, two, three);
    if constexpr (kStates > 0) first[i] = one;
    if constexpr (kStates > 1) second[i] = two;
    if constexpr (kStates > 2) third[i] = three;
    params[i] = narrow<P>(param);
  }
}

template <class Kind, bool kMore, class P>
PLATEAU_INLINE void move_piece(const Update<Kind>& update, const Stacked& tensor,
                               const Piece& piece) {
  using T = Wide<P>;
  const int count = static_cast<int>(piece.rows > 1 ? tensor.width : piece.size);
  const auto state = [&](int i, std::int64_t at) {
    return tensor.state[i] ? static_cast<T*>(tensor.state[i]) + at : nullptr;
  };
  for (std::int64_t lane = piece.row; lane < piece.row + piece.rows; ++lane) {
    if (!update.moves(lane)) continue;
    const std::int64_t at = lane * tensor.width + piece.first;
    P* grads = static_cast<P*>(tensor.grad) + at;
    if (update.grad_scale) unscale(grads, count, update.template unscale<T>());
    move_row<Kind, kMore>(update.template row<T>(tensor, lane), static_cast<P*>(tensor.param) + at,
                          grads, state(0, at), state(1, at), state(2, at), count);
  }
}

#define PLATEAU_MOVE(name, Kind, kMore, P)                                          \
  PLATEAU_MULTIVERSION void name(const Update<Kind>& update, const Stacked& tensor, \
                                 const Piece& piece) {                              \
    move_piece<Kind, kMore, P>(update, tensor, piece);                              \
  }
#define PLATEAU_MOVES(name, Kind, kMore)         \
  PLATEAU_MOVE(name##_f16, Kind, kMore, Half)    \
  PLATEAU_MOVE(name##_bf16, Kind, kMore, BFloat) \
  PLATEAU_MOVE(name##_f32, Kind, kMore, float)   \
  PLATEAU_MOVE(name##_f64, Kind, kMore, double)
PLATEAU_MOVES(adam, Adam, false)
PLATEAU_MOVES(amsgrad, Adam, true)
PLATEAU_MOVES(sgd, Sgd, false)
PLATEAU_MOVES(momentum, Sgd, true)
#undef PLATEAU_MOVES
#undef PLATEAU_MOVE

template <class Kind>
using Move = void (*)(const Update<Kind>&, const Stacked&, const Piece&);

template <class Kind>
Move<Kind> one_of(Dtype dtype, Move<Kind> f16, Move<Kind> bf16, Move<Kind> f32, Move<Kind> f64) {
  if (dtype == Dtype::kFloat16) return f16;
  if (dtype == Dtype::kBFloat16) return bf16;
  return dtype == Dtype::kFloat32 ? f32 : f64;
}

Move<Adam> move_of(const Adam& kind, Dtype dtype) {
  return kind.amsgrad ? one_of<Adam>(dtype, amsgrad_f16, amsgrad_bf16, amsgrad_f32, amsgrad_f64)
                      : one_of<Adam>(dtype, adam_f16, adam_bf16, adam_f32, adam_f64);
}

Move<Sgd> move_of(const Sgd& kind, Dtype dtype) {
  return kind.has_momentum
             ? one_of<Sgd>(dtype, momentum_f16, momentum_bf16, momentum_f32, momentum_f64)
             : one_of<Sgd>(dtype, sgd_f16, sgd_bf16, sgd_f32, sgd_f64);
}

template <class Kind>
void update_on_host(const Update<Kind>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                    int threads) {
  if (update.is_skipped()) return;
  std::int64_t pieces = 0, elements = 0;
  for (const Stacked& tensor : tensors) {
    for (std::int64_t lane = 0; tensor.step && lane < update.n; ++lane) {
      if (update.moves(lane)) tensor.step[lane] += 1;
    }
    pieces += Pieces(update.n, tensor.width, kPiece).count();
    elements += update.n * tensor.width;
  }
  const std::int64_t worth = std::min(pieces, elements / kWork + 1);
  auto used = static_cast<int>(std::min<std::int64_t>(threads, worth));
  std::vector<Shares> shares;  // of each tensor: as torch's operations on it, which come before
  try {
    shares.reserve(tensors.size());
    for (const Stacked& tensor : tensors) {
      shares.emplace_back(Pieces(update.n, tensor.width, kPiece).count(), used);
    }
  } catch (const std::bad_alloc&) {  // then nobody shares
    used = 1;
    shares.clear();
  }
  const auto move = move_of(update.kind, dtype);
  on_team(used, [&](int share) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const Stacked& tensor = tensors[i];
      const Pieces cut(update.n, tensor.width, kPiece);
      const auto take = [&](std::int64_t piece) { move(update, tensor, cut.at(piece)); };
      if (!shares.empty()) {
        shares[i].take(share, take);
      } else {
        for (std::int64_t piece = 0; piece < cut.count(); ++piece) take(piece);
      }
    }
  });
}

}  // namespace

void update_cpu(const Update<Adam>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                int threads) noexcept {
  update_on_host(update, tensors, dtype, threads);
}

void update_cpu(const Update<Sgd>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                int threads) noexcept {
  update_on_host(update, tensors, dtype, threads);
}

}  // namespace plateau
