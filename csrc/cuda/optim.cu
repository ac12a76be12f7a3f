// SPDX-License-Identifier: BSD-3-Clause
// The optimizers' kernels and launches: a block of threads takes a piece of a tensor, works out
// once what each of its rows shares, and then goes over the elements.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/check.cuh"
#include "cuda/launch.cuh"
#include "optim/adam.hpp"
#include "optim/sgd.hpp"
#include "optim/update.hpp"

namespace plateau {
namespace {

constexpr int kOptimThreads = 256;
constexpr int kMostTensors = 60;
constexpr std::size_t kMostArguments = 4096;  // bytes that a kernel may be given anywhere

/// What a launch is about, all of it in the kernel's arguments.
template <class Kind>
struct Batch {
  Update<Kind> update;
  Stacked tensors[kMostTensors];
  std::uint32_t ends[kMostTensors];  // of each tensor's pieces
  int count;
};
static_assert(sizeof(Batch<Adam>) <= kMostArguments && sizeof(Batch<Sgd>) <= kMostArguments);

template <class Kind>
__global__ void __launch_bounds__(kOptimThreads) count_rows(const Batch<Kind> batch) {
  const Update<Kind>& update = batch.update;
  if (update.is_skipped()) return;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= update.n * batch.count) return;
  if (update.moves(i % update.n)) batch.tensors[i / update.n].step[i % update.n] += 1;
}

template <class Kind, bool kMore, class P>
__device__ void move_element(const Update<Kind>& update,
                             const typename Kind::template Row<Wide<P>>& row, const Stacked& tensor,
                             std::int64_t at, Wide<P> unscale) {
  using T = Wide<P>;
  constexpr int kStates = Kind::kStates + kMore;
  P* params = static_cast<P*>(tensor.param);
  P* grads = static_cast<P*>(tensor.grad);
  P grad = grads[at];
  if (update.grad_scale) grads[at] = grad = unscaled(grad, unscale);
  T param = widen(params[at]), state[kMostStates] = {};
#pragma unroll
  for (int s = 0; s < kStates; ++s) state[s] = static_cast<const T*>(tensor.state[s])[at];
  Kind::template move<kMore>(row, param, widen(grad), state[0], state[1], state[2]);
#pragma unroll
  for (int s = 0; s < kStates; ++s) static_cast<T*>(tensor.state[s])[at] = state[s];
  params[at] = narrow<P>(param);
}

template <class Kind, bool kMore, class P>
__global__ void __launch_bounds__(kOptimThreads) move_rows(const Batch<Kind> batch) {
  using T = Wide<P>;
  __shared__ typename Kind::template Row<T> rows[kPieceRows];
  __shared__ bool moves[kPieceRows];
  const Update<Kind>& update = batch.update;
  if (update.is_skipped()) return;  // all threads or none
  int which = 0;
  while (batch.ends[which] <= blockIdx.x) ++which;
  const Stacked& tensor = batch.tensors[which];
  const Pieces cut(update.n, tensor.width);
  const Piece piece = cut.at(blockIdx.x - (which ? batch.ends[which - 1] : 0));
  for (int r = static_cast<int>(threadIdx.x); r < piece.rows; r += kOptimThreads) {
    moves[r] = update.moves(piece.row + r);
    if (moves[r]) rows[r] = update.template row<T>(tensor, piece.row + r);
  }
  __syncthreads();
  const T unscale = update.grad_scale ? update.template unscale<T>() : T(1);
  const std::int64_t begin = piece.row * tensor.width + piece.first;
  const int width = static_cast<int>(piece.rows > 1 ? tensor.width : piece.size);
  for (int i = static_cast<int>(threadIdx.x); i < piece.size; i += kOptimThreads) {
    const int r = piece.rows > 1 ? i / width : 0;
    if (moves[r]) move_element<Kind, kMore, P>(update, rows[r], tensor, begin + i, unscale);
  }
}

template <class Kind>
using Kernel = void (*)(const Batch<Kind>);

template <class Kind, bool kMore>
Kernel<Kind> kernel_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat16:
      return &move_rows<Kind, kMore, Half>;
    case Dtype::kBFloat16:
      return &move_rows<Kind, kMore, BFloat>;
    case Dtype::kFloat32:
      return &move_rows<Kind, kMore, float>;
    default:
      return &move_rows<Kind, kMore, double>;
  }
}

template <class Kind>
void launch_all(const Update<Kind>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                int device, void* stream) {
  if (update.n == 0) return;
  const DeviceGuard guard(device);
  const auto kernel =
      update.kind.has_more() ? kernel_of<Kind, true>(dtype) : kernel_of<Kind, false>(dtype);
  for (std::size_t first = 0; first < tensors.size(); first += kMostTensors) {
    Batch<Kind> batch{update, {}, {}, 0};
    batch.count = static_cast<int>(std::min<std::size_t>(kMostTensors, tensors.size() - first));
    std::int64_t pieces = 0;
    for (int i = 0; i < batch.count; ++i) {
      batch.tensors[i] = tensors[first + static_cast<std::size_t>(i)];
      pieces += Pieces(update.n, batch.tensors[i].width).count();
      batch.ends[i] = static_cast<std::uint32_t>(pieces);
    }
    if (batch.tensors[0].step) {
      launch(&count_rows<Kind>, blocks(update.n * batch.count, kOptimThreads), kOptimThreads,
             stream, batch);
    }
    launch(kernel, static_cast<unsigned>(pieces), kOptimThreads, stream, batch);
  }
}

template <class Kind>
void load_all_of() {
  load(&count_rows<Kind>);
  for (const Dtype dtype : {Dtype::kFloat16, Dtype::kBFloat16, Dtype::kFloat32, Dtype::kFloat64}) {
    load(kernel_of<Kind, false>(dtype));
    load(kernel_of<Kind, true>(dtype));
  }
}

}  // namespace

void update_cuda(const Update<Adam>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                 int device, void* stream) {
  launch_all(update, tensors, dtype, device, stream);
}

void update_cuda(const Update<Sgd>& update, const std::vector<Stacked>& tensors, Dtype dtype,
                 int device, void* stream) {
  launch_all(update, tensors, dtype, device, stream);
}

void load_optimizers() {
  load_all_of<Adam>();
  load_all_of<Sgd>();
}

}  // namespace plateau
