// SPDX-License-Identifier: BSD-3-Clause
// The device's time loop against the host's, bit for bit, and against itself when asked why.
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "drawn.hpp"
#include "plateau/replay.hpp"
#include "rows.hpp"
#include "twins.hpp"

void test_replay();

namespace {

using namespace plateau;

constexpr std::int64_t kEpochs = 9;

/// What a replay on the device writes down.
template <class B>
class DeviceRows {
 public:
  explicit DeviceRows(const Rows<Vector, B>& zeros) {
    for_rows(rows_, zeros, [](const char*, auto& array, auto& values) { array.hold(values); });
  }
  Record record() { return record_of(rows_); }
  Rows<Vector, B> read() {
    Rows<Vector, B> found;
    for_rows(found, rows_, [](const char*, auto& values, auto& array) { values = array.read(); });
    return found;
  }

 private:
  Rows<Array, B> rows_;
};

/// Replays on both sides and compares all that was written, and with a replay that writes down why.
/// Returns how many lanes were cut.
template <class B>
std::int64_t compare(const Draw& draw, bool shared, Tell tell) {
  const std::int64_t width = shared ? 1 : draw.form.n;
  const Held<B> held = drawn<B>(draw);
  Twins<B> twins(held), asked(held);
  const auto zeros = rows_for<B>(draw.form, kEpochs, tell);
  const auto all = rows_for<B>(draw.form, kEpochs, Tell::kReasons);
  Twin<B> metrics(some<B>(kEpochs * width, {B(0.4), B(0.9), B(2.0), B(0.0), B(-1.0), B(NAN)}));
  const auto history = [&](bool on_device) {
    return History{{metrics.side(on_device), shared ? 0 : 1, dtype_of<B>()}, width, kEpochs};
  };
  const bool parts = held.has_parts();
  Rows<Vector, B> host = zeros;
  DeviceRows<B> device(zeros), reasons(all);
  replay_cpu(twins.host.lanes(), history(false), record_of(host), parts, 3);
  replay_cuda(twins.on_device(), history(true), device.record(), parts, 0, nullptr);
  replay_cuda(asked.on_device(), history(true), reasons.record(), parts, 0, nullptr);
  CHECK_SAME(twins.host, twins.read());
  CHECK_SAME(twins.host, asked.read());
  CHECK_SAME(host, device.read());
  CHECK_SAME(host, reasons.read());
  std::int64_t cut = 0;
  for (const std::int32_t first : host.first_cut) cut += first > 0;
  return cut;
}

void a_replay_on_the_device_is_that_on_the_host() {
  const std::vector<std::int64_t> counts = {3, 0, 1, 40, 2, 2, 2, 9, 1};
  const Form owning{static_cast<std::int64_t>(counts.size()), counts};
  std::int64_t cut = 0;
  for (const Each each : {Each::kNone, Each::kAll, Each::kFew}) {
    for (const Tell tell : {Tell::kSummary, Tell::kState, Tell::kReasons}) {
      for (int bits = 0; bits < 4; ++bits) {
        const bool shared = bits & 1, parts = bits & 2;
        for (const std::int64_t n : {1, 129, 600}) {
          cut += compare<double>({{n}, each, parts}, shared, tell);
        }
        cut += compare<float>({{257}, each, parts}, shared, tell);
        cut += compare<double>({owning, each, parts}, shared, tell);
      }
    }
  }
  CHECK(cut > 1000);
}

void nothing_to_replay_writes_nothing() {
  const Held<double> held = drawn<double>({{2}});
  Twins<double> twins(held);
  DeviceRows<double> rows(rows_for<double>({2}, 1, Tell::kReasons));
  const History none{{nullptr, 0, Dtype::kFloat64}, 1, 0};
  replay_cuda(twins.on_device(), none, rows.record(), false, 0, nullptr);
  CHECK_SAME(held, twins.read());
}

}  // namespace

void test_replay() {
  a_replay_on_the_device_is_that_on_the_host();
  nothing_to_replay_writes_nothing();
}
