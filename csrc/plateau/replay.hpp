// SPDX-License-Identifier: BSD-3-Clause
// Many steps in one pass: declarations and contracts.
#pragma once

#include <cstdint>
#include <functional>

#include "plateau/lanes.hpp"
#include "plateau/types.hpp"

namespace plateau {

/// The metrics of all epochs: those of epoch e begin `e * row` elements after the first ones. A
/// stride of 0 is one history for all lanes.
struct History {
  Metrics first;
  std::int64_t row;
  std::int64_t epochs;  ///< below 2^31

  PLATEAU_HD Metrics at(std::int64_t epoch) const noexcept {
    const char* data = static_cast<const char*>(first.data);
    return {data + epoch * row * bytes_of(first.dtype), first.stride, first.dtype};
  }
};

/// What a replay writes down. The first two have one value per lane and are always written; the
/// others have a row per epoch, the state after its step, and are left out where null.
struct Record {
  std::int32_t* first_cut = nullptr;  ///< the step that first lowered a rate, from 1; 0 for none
  std::int32_t* wasted = nullptr;     ///< steps until then, or until the end, that did not improve
  float* published = nullptr;         ///< rows of `num_groups`
  std::uint8_t* outcome = nullptr;
  void* best = nullptr;  ///< of the lanes' type
  std::int32_t* clock = nullptr;
  double* value = nullptr;      ///< what decided: the metric, or the average of it
  std::uint8_t* why = nullptr;  ///< this and the rest: see Told in lane.hpp
  double* gate = nullptr;
  std::int32_t* count = nullptr;
  std::int32_t* limit = nullptr;

  /// Whether there are rows to write.
  PLATEAU_HD bool has_rows() const noexcept {
    return published || outcome || best || clock || value || explains();
  }

  /// Whether lanes are asked why: they are then taken one by one.
  PLATEAU_HD bool explains() const noexcept { return why || gate || count || limit; }
};

/// @brief What step_cpu() would do for each epoch of `history` in turn, in one pass over the lanes.
///
/// The state in `lanes` ends as it would there. Lanes are shared among at most `threads` threads,
/// the calling one included; fewer where there is little to do. Events must be off, for their order
/// would depend on the threads. With n = 0, as with no epochs, nothing is written. Never throws.
/// `parts`: as step_lanes_cpu() would do, for lanes with optional parts. `goes_on` is asked by the
/// calling thread between its lanes, if there is one; once it says no, others stay as they are.
void replay_cpu(const Lanes& lanes, const History& history, const Record& record, bool parts,
                int threads, const std::function<bool()>& goes_on = {}) noexcept;

/// @brief The same on a CUDA device, in one kernel launch, ordered by `stream` as step_cuda() is.
/// @throw std::runtime_error as step_cuda()
void replay_cuda(const Lanes& lanes, const History& history, const Record& record, bool parts,
                 int device, void* stream);

}  // namespace plateau
