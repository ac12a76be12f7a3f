// SPDX-License-Identifier: BSD-3-Clause
// Where callgrind begins and ends to count, for loops.cpp and, through ctypes, for calls.py.
// Without valgrind around it this does nothing.
#include <valgrind/callgrind.h>

extern "C" void begin_count() {
  CALLGRIND_START_INSTRUMENTATION;
  CALLGRIND_ZERO_STATS;
}

/// Writes what was counted since to a file of its own, of which `name` is the description.
extern "C" void end_count(const char* name) {
  CALLGRIND_DUMP_STATS_AT(name);
  CALLGRIND_STOP_INSTRUMENTATION;
}
