// SPDX-License-Identifier: BSD-3-Clause
// The one macro that lets the rule be written once for host and device.
#pragma once

#ifdef __CUDACC__
#define PLATEAU_HD __host__ __device__
#else
#define PLATEAU_HD
#endif
