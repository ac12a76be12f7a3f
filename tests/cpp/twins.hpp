// SPDX-License-Identifier: BSD-3-Clause
// The same numbers on the host and on a device: arrays, and lanes by the tables.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "check.hpp"
#include "held.hpp"
#include "plateau/step.hpp"

namespace plateau {

inline void must(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

/// An array on the device, `shift` elements from where memory begins.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(const std::vector<T>& values, std::size_t shift = 0) { hold(values, shift); }
  ~Array() { cudaFree(memory_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  /// To be called once.
  void hold(const std::vector<T>& values, std::size_t shift = 0) {
    size_ = values.size();
    must(cudaMalloc(&memory_, (size_ + shift) * sizeof(T) + 1));
    data_ = static_cast<T*>(memory_) + shift;
    must(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyDefault));
  }

  std::vector<T> read() const {
    std::vector<T> values(size_);
    must(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDefault));
    return values;
  }

  bool empty() const { return size_ == 0; }
  T* data() const { return data_; }

 private:
  void* memory_ = nullptr;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// An array on both sides.
template <class T>
struct Twin {
  explicit Twin(std::vector<T> values, std::size_t shift = 0)
      : host(std::move(values)), device(host, shift) {}
  T* side(bool on_device) { return on_device ? device.data() : host.data(); }

  std::vector<T> host;
  Array<T> device;
};

/// The bits of an event, field by field.
using Event = std::vector<std::uint64_t>;

/// The events from number `first` on, sorted: within a step their order is free.
template <class B>
std::vector<Event> events_from(const Held<B>& held, std::int64_t first) {
  std::vector<Event> found;
  for (std::int64_t i = first; i < held.state.events_written[0]; ++i) {
    Event event;
    for_fields(held.state, held.state, [&](const char*, Of of, const auto& field, const auto&) {
      if (of != Of::kEvent) return;
      const auto value = one_nan(field[static_cast<std::size_t>(i % held.form.events)]);
      event.emplace_back();
      std::memcpy(&event.back(), &value, sizeof value);
    });
    found.push_back(event);
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// Lanes on both sides.
template <class B>
class Twins {
 public:
  explicit Twins(Held<B> held) : host(std::move(held)) {
    offsets_.hold(host.offsets);
    for_fields(state_, host.state,
               [](const char*, Of, auto& array, auto& values) { array.hold(values); });
    for_settings(settings_, host.settings, [](auto& choice, auto& values) {
      choice.all = values.all;
      choice.each.hold(values.each);
    });
  }

  Lanes on_device() {
    Lanes lanes = host.frame();
    bind(lanes, offsets_, state_, settings_);
    return lanes;
  }

  /// What the device holds now.
  Held<B> read() {
    Held<B> held = host;
    for_fields(held.state, state_,
               [](const char*, Of, auto& values, auto& array) { values = array.read(); });
    return held;
  }

  /// Steps both sides and compares every field. With a mask, or optional parts, lane by lane.
  template <class M>
  void step(const Twin<M>& metrics, Dtype dtype, std::int64_t stride = 1, std::int64_t first = 0,
            const Twin<std::uint8_t>* mask = nullptr) {
    const Metrics here{metrics.host.data() + first, stride, dtype};
    const Metrics there{metrics.device.data() + first, stride, dtype};
    const std::int64_t written = host.form.events ? host.state.events_written[0] : 0;
    if (mask || host.has_parts()) {
      step_lanes_cpu(host.lanes(), here, mask ? mask->host.data() : nullptr);
      step_lanes_cuda(on_device(), there, mask ? mask->device.data() : nullptr, 0, nullptr);
    } else {
      step_cpu(host.lanes(), here);
      step_cuda(on_device(), there, 0, nullptr);
    }
    const Held<B> device = read();
    CHECK_SAME(host, device);
    if (host.form.events) CHECK(events_from(host, written) == events_from(device, written));
  }

  Held<B> host;

 private:
  Array<std::int64_t> offsets_;
  Fields<Array, B> state_;
  Choices<Array> settings_;
};

}  // namespace plateau
