// SPDX-License-Identifier: BSD-3-Clause
// The very source of the kernels and their launches, compiled for the host.
#include "cuda/optim.cu"
#include "cuda/replay.cu"
#include "cuda/step.cu"
