// SPDX-License-Identifier: BSD-3-Clause
// Checks that say what is not so and go on; main() returns whether any failed.
#pragma once

#include <cstdio>
#include <string>

inline int failures = 0;

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                         \
    }                                                                     \
  } while (false)

/// Checks that differing() finds no difference between the two, or says where they differ.
#define CHECK_SAME(one, other)                                                         \
  do {                                                                                 \
    const std::string names = differing(one, other);                                   \
    if (!names.empty()) {                                                              \
      std::printf("%s:%d: %s and %s differ in:%s\n", __FILE__, __LINE__, #one, #other, \
                  names.c_str());                                                      \
      ++failures;                                                                      \
    }                                                                                  \
  } while (false)
