// SPDX-License-Identifier: BSD-3-Clause
// The one macro that lets the rule be written once for host and device.
#pragma once

#ifdef __CUDACC__
#define PLATEAU_HD __host__ __device__
#else
#define PLATEAU_HD
#endif

// Host loops are compiled for several targets, other ones than the rest, so their callees must be
// inlined.
#if defined(__GNUC__)
#define PLATEAU_INLINED __attribute__((always_inline))  // after the parameters of a lambda
#define PLATEAU_INLINE inline PLATEAU_INLINED
#else
#define PLATEAU_INLINED
#define PLATEAU_INLINE __forceinline
#endif
