// What every shim source needs: the guard, the handle types, and their live counts.
#pragma once

#define TV_BUILD
#include "shim.h"

#include <atomic>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>

#include "text.h"

namespace tv {

enum Kind { kTensor, kValues, kModule, kStatus, kPin, kBuffer, kOptimizer, kCUDAGraph, kKinds };
// Visible to the CUDA side library.
extern TV_API std::atomic<int64_t> live[kKinds];

// Counts itself for as long as it lives.
template <Kind K>
struct Counted {
  Counted() { live[K].fetch_add(1, std::memory_order_relaxed); }
  Counted(const Counted&) : Counted() {}
  ~Counted() { live[K].fetch_sub(1, std::memory_order_relaxed); }
};

// An error of the shim's own, with a code.
struct Error : std::runtime_error {
  Error(int32_t code, const std::string& message) : std::runtime_error(message), code(code) {}
  int32_t code;
};

// A status that another function of the shim gave, on its way through code that throws.
struct TV_API Failed {
  tv_status* status;
};

}  // namespace tv

struct tv_status : tv::Counted<tv::kStatus> {
  int32_t code;
  std::string message, detail;
};
struct tv_tensor : tv::Counted<tv::kTensor> {
  explicit tv_tensor(at::Tensor t) : t(std::move(t)) {}
  at::Tensor t;
};
struct tv_buffer : tv::Counted<tv::kBuffer> {
  explicit tv_buffer(std::string s) : bytes(std::move(s)) {}
  std::string bytes;
};

namespace tv {

// The CPU has no index: a tensor on "cpu" is not on "cpu:0", and moving it would copy.
inline at::Device device(int32_t type, int32_t index) {
  const auto t = static_cast<at::DeviceType>(type);
  return t == at::kCPU ? at::Device(t) : at::Device(t, static_cast<at::DeviceIndex>(index));
}

// The status of the exception that is being handled. Never throws: a static status stands in when
// there is no memory for one.
TV_API tv_status* current_exception_status() noexcept;

// Runs the body of an exported function; nothing gets past it.
template <typename F>
tv_status* guard(F&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (...) {
    return current_exception_status();
  }
}

// The same for functions that have no status to give, such as those that free.
template <typename F>
void quiet(F&& body) noexcept {
  try {
    body();
  } catch (...) {
  }
}

}  // namespace tv
