// SPDX-License-Identifier: BSD-3-Clause
// In place of step.cu where there is no nvcc.
#include <stdexcept>

#include "optim/update.hpp"
#include "plateau/replay.hpp"
#include "plateau/step.hpp"

namespace plateau {
namespace {

[[noreturn]] void refuse() {
  throw std::runtime_error(
      "torch-plateau was built without CUDA kernels: put nvcc on PATH and install it again "
      "(TORCH_PLATEAU_CUDA=ON says why where that fails)");
}

}  // namespace

void step_cuda(const Lanes&, const Metrics&, int, void*) { refuse(); }
void step_lanes_cuda(const Lanes&, const Metrics&, const std::uint8_t*, int, void*) { refuse(); }
void replay_cuda(const Lanes&, const History&, const Record&, bool, int, void*) { refuse(); }
void update_cuda(const Update<Adam>&, const std::vector<Stacked>&, Dtype, int, void*) { refuse(); }
void update_cuda(const Update<Sgd>&, const std::vector<Stacked>&, Dtype, int, void*) { refuse(); }
void prepare_cuda(int) { refuse(); }
CudaBuild cuda_build() noexcept { return {"", ""}; }

}  // namespace plateau
