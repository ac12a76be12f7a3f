// SPDX-License-Identifier: BSD-3-Clause
// Launches: on which device and stream, what is current afterwards, and calls that fail. With the
// emulation alone, which counts launches and fails to order.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "drawn.hpp"
#include "plateau/replay.hpp"
#include "plateau/step.hpp"
#include "rows.hpp"
#include "twins.hpp"

void test_launches();

namespace {

using namespace plateau;

/// Lanes and all that can be done with them on a device.
struct Work {
  explicit Work(bool grouped)
      : twins(drawn<double>({grouped ? Form{3, {1, 2, 3}} : Form{3}, Each::kAll, false})),
        rows(rows_for<double>(twins.host.form, 1, Tell::kReasons)) {}

  void step(int device, void* stream = nullptr) {
    step_cuda(twins.on_device(), {metrics.device.data(), 1, Dtype::kFloat64}, device, stream);
  }
  void step_lanes(int device, void* stream = nullptr) {
    step_lanes_cuda(twins.on_device(), {metrics.device.data(), 1, Dtype::kFloat64}, nullptr, device,
                    stream);
  }
  void replay(int device, void* stream = nullptr) {
    const History history{{metrics.device.data(), 1, Dtype::kFloat64}, 3, 1};
    replay_cuda(twins.on_device(), history, record_of(rows), false, device, stream);
  }

  Twins<double> twins;
  Twin<double> metrics{{1.0, 2.0, 3.0}};
  Rows<Vector, double> rows;  // the emulation's devices reach the host's memory
};

/// Device 1 has a context, for there are lanes on it; this thread never used CUDA.
void begin_on_another_thread() {
  emulation::forget();
  emulation::devices[1].in_use = true;
  emulation::devices[1].holders = 1;
}

/// Whether nothing is left of what was done on device 1.
bool nothing_is_left() {
  return emulation::pushed.empty() && emulation::devices[0].holders == 0 &&
         emulation::devices[1].holders == 1;
}

void work_is_one_launch_on_the_device_and_stream_it_is_given() {
  int target = 0;
  for (const bool grouped : {false, true}) {
    Work work(grouped);
    for (const auto run : {&Work::step, &Work::step_lanes, &Work::replay}) {
      begin_on_another_thread();
      emulation::launches = 0;
      emulation::stream = nullptr;
      (work.*run)(1, &target);
      CHECK(emulation::launches == 1);
      CHECK(emulation::stream == &target);
      CHECK(emulation::launched_on == 1);
    }
  }
}

void a_kernel_that_waits_may_begin_early_where_the_device_can_do_so() {
  Work work(false);
  for (const int major : {7, 8, 9, 10}) {
    for (const auto run : {&Work::step, &Work::step_lanes}) {
      begin_on_another_thread();
      emulation::devices[1].major = major;
      (work.*run)(1, nullptr);
      CHECK(emulation::early == (major >= 9));
    }
    work.replay(1);
    CHECK(!emulation::early);
  }
}

void no_context_is_made_on_a_device_that_had_none() {
  Work work(false);
  for (const auto run : {&Work::step, &Work::step_lanes, &Work::replay}) {
    begin_on_another_thread();
    (work.*run)(1, nullptr);
    CHECK(emulation::launched_on == 1);
    CHECK(nothing_is_left());
  }
  begin_on_another_thread();
  prepare_cuda(1);
  CHECK(emulation::devices[1].loaded.size() > 0);
  CHECK(nothing_is_left());
}

void the_device_that_is_current_is_so_afterwards_and_nothing_was_pushed_over_it() {
  Work work(false);
  for (const int device : {0, 1}) {
    emulation::forget();
    cudaSetDevice(device);
    work.step(device);
    prepare_cuda(device);
    CHECK(emulation::pushes == 0);
    CHECK(emulation::launched_on == device);
    work.step(1 - device);
    CHECK(emulation::pushes == 1);
    CHECK(emulation::launched_on == 1 - device);
    CHECK(emulation::pushed == std::vector{&emulation::devices[device]});
    CHECK(emulation::devices[device].holders == 1);
  }
}

template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

bool begins(const std::string& message, const char* with) { return message.find(with) == 0; }

void a_call_that_fails_is_named_and_cleared_and_changes_nothing() {
  Work work(false);
  const auto fails = [](auto call, const char* name) {
    begin_on_another_thread();
    emulation::failing = 3;
    const std::string message = message_of(call);
    CHECK(begins(message, name));
    CHECK(message.find("cudaErrorEmulated, made to fail") != std::string::npos);
    CHECK(emulation::failing == 0);
    CHECK(nothing_is_left());
  };
  fails([&] { work.step(1); }, "cudaLaunchKernel(");
  fails([&] { work.step_lanes(1); }, "cudaLaunchKernel(");
  fails([&] { work.replay(1); }, "cudaLaunchKernel(");
  fails([] { prepare_cuda(1); }, "cudaFuncGetAttributes(");
  CHECK_SAME(work.twins.host, work.twins.read());
}

void a_driver_that_fails_is_named_and_nothing_is_held() {
  Work work(false);
  for (const char* name : {"cuDevicePrimaryCtxRetain", "cuCtxPushCurrent"}) {
    begin_on_another_thread();
    emulation::failing_driver = name;
    CHECK(message_of([&] { work.step(1); }) == std::string(name) + ": CUresult 999");
    emulation::failing_driver = "";
    CHECK(nothing_is_left());
  }
  CHECK_SAME(work.twins.host, work.twins.read());
}

/// To be called before anything was pushed, and in this order: the driver is asked once.
void a_driver_that_lacks_a_function_is_told_of_by_its_name() {
  Work work(false);
  for (const char* name : {"cuDevicePrimaryCtxRetain", "cuCtxPushCurrent", "cuCtxPopCurrent",
                           "cuDevicePrimaryCtxRelease"}) {
    begin_on_another_thread();
    emulation::missing_driver = name;
    CHECK(message_of([&] { work.step(1); }) == std::string(name) + ": not in this driver");
    emulation::missing_driver = "";
    CHECK(nothing_is_left());
  }
}

void no_lanes_launch_nothing() {
  Twins<double> none(Held<double>({0}));
  emulation::launches = 0;
  step_cuda(none.on_device(), {nullptr, 1, Dtype::kFloat64}, 1, nullptr);
  step_lanes_cuda(none.on_device(), {nullptr, 1, Dtype::kFloat64}, nullptr, 1, nullptr);
  CHECK(emulation::launches == 0);
}

/// To be called last: of all that was launched by any test.
void the_kernels_that_are_prepared_are_all_that_there_are() {
  emulation::forget();
  prepare_cuda(1);
  CHECK(emulation::devices[1].loaded == emulation::launched);
  CHECK(emulation::devices[0].loaded.empty());
}

}  // namespace

void test_launches() {
  a_driver_that_lacks_a_function_is_told_of_by_its_name();
  work_is_one_launch_on_the_device_and_stream_it_is_given();
  a_kernel_that_waits_may_begin_early_where_the_device_can_do_so();
  no_context_is_made_on_a_device_that_had_none();
  the_device_that_is_current_is_so_afterwards_and_nothing_was_pushed_over_it();
  a_call_that_fails_is_named_and_cleared_and_changes_nothing();
  a_driver_that_fails_is_named_and_nothing_is_held();
  no_lanes_launch_nothing();
  the_kernels_that_are_prepared_are_all_that_there_are();
}
