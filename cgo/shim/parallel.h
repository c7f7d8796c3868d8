// Work on the threads that libtorch's operators use.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include <ATen/Parallel.h>
#include <c10/util/FunctionRef.h>

namespace tv {

// Runs work on count threads of the calling thread's team, the caller among them; work must not throw. ATen's
// parallel_for is inline: it would need the OpenMP of the compiler, which need not be libtorch's.
void on_threads(int64_t count, c10::function_ref<void()> work);

// Runs f(0) to f(n - 1), each on the next thread that is free.
template <typename F>
void each_index(int64_t n, const F& f) {
  std::atomic<int64_t> next{0};
  on_threads(std::min<int64_t>(at::get_num_threads(), n), [&] {
    for (int64_t i = next.fetch_add(1); i < n; i = next.fetch_add(1)) f(i);
  });
}

}  // namespace tv
