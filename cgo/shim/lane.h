// Running a body on a lane, under a mode.
#pragma once

#include <functional>
#include <optional>

#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include "guard.h"

namespace tv {

// Sets what a call's tv_mode asks for on the running thread, and puts back what was there.
// Visible to the CUDA side library, as run_on_lane.
class TV_API ModeGuard {
 public:
  explicit ModeGuard(const tv_mode& mode);
  ~ModeGuard();
  ModeGuard(const ModeGuard&) = delete;
  ModeGuard& operator=(const ModeGuard&) = delete;

 private:
  std::optional<c10::InferenceMode> inference_;
  std::optional<c10::AutoGradMode> grad_;
  bool recording_ = false, autocast_ = false;
  bool cpu_was_ = false, cuda_was_ = false;
  at::ScalarType cpu_dtype_was_, cuda_dtype_was_;
};

// Keeps libtorch from opening parallel regions on the calling thread, which is Go's: libgomp would make
// a pool of threads for it. What opens large ones belongs on a lane.
void one_thread_here();

// Calls fn(arg) on that lane and waits; lane -1 is the calling thread, kHere too where that is a lane's already.
constexpr int32_t kHere = -2;
TV_API void run_on_lane(int32_t lane, void (*fn)(void*), void* arg);

// Runs the body on the lane and under the mode; what it throws becomes the status.
template <typename F>
tv_status* run(const tv_mode& mode, F&& body) noexcept {
  tv_status* status = nullptr;
  auto task = [&] {
    status = guard([&] {
      ModeGuard g(mode);
      body();
    });
  };
  using Task = decltype(task);
  tv_status* failed = guard([&] { run_on_lane(mode.lane, [](void* p) { (*static_cast<Task*>(p))(); }, &task); });
  return failed != nullptr ? failed : status;
}

// guard for work on tensors on the calling thread, with nothing set about gradients.
template <typename F>
tv_status* light(F&& body) noexcept {
  return guard([&] {
    one_thread_here();
    body();
  });
}

}  // namespace tv
