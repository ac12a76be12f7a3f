// SPDX-License-Identifier: BSD-3-Clause
// From dicts of tensors to the pointers that the core works with, by the tables of settings and
// state.
#pragma once

#include <dlpack/dlpack.h>

#include <cstdint>

#include "plateau/lanes.hpp"
#include "plateau/replay.hpp"
#include "python/described.hpp"

namespace plateau {

/// Lanes over `tensors` (fields of the state, and `offsets` where lanes own several rates; those
/// that are missing are null) with `settings` (a float for all lanes, or a tensor). Throws
/// std::invalid_argument for what does not fit together.
struct Connected {
  Connected(const Named& tensors, const Named& settings);
  Lanes lanes;
  DLDevice device{};
};

/// The flat tensors that a replay writes, by the names of Record's fields.
Record record_of(const Named& rows, const Lanes& lanes, std::int64_t epochs, DLDevice device);

}  // namespace plateau
