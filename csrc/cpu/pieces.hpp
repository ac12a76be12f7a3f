// SPDX-License-Identifier: BSD-3-Clause
// A step of many lanes on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>

#include "cpu/threads.hpp"
#include "plateau/step.hpp"

namespace plateau {

/// Calls `step(begin, end)`, which returns what it did, for all of `n` lanes, in pieces of whole
/// blocks that threads take. Lanes know nothing of each other, so it is the same in any order.
template <class Step>
Stepped step_in_pieces(std::int64_t n, int threads, const Step& step) noexcept {
  constexpr std::int64_t kPiece = 1 << 14;
  const auto used = static_cast<int>(std::min<std::int64_t>(threads, n / kLanesPerThread));
  if (used <= 1) return step(0, n);
  std::atomic<std::int64_t> reduced{0};
  std::atomic<bool> improved{false}, published{false};
  try {
    Shares shares((n + kPiece - 1) / kPiece, used);
    on_team(used, [&](int share) {
      shares.take(share, [&](std::int64_t piece) {
        const Stepped done = step(piece * kPiece, std::min(n, (piece + 1) * kPiece));
        reduced += done.reduced;
        if (done.improved) improved = true;
        if (done.published) published = true;
      });
    });
  } catch (const std::bad_alloc&) {  // before the first piece
    return step(0, n);
  }
  return {reduced, improved, published};
}

}  // namespace plateau
