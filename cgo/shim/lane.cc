// Lanes: permanent threads on which the calls run that open parallel regions.
//
// libgomp keeps a pool of threads for every thread that opened a parallel region, and goroutines wander
// over many threads: without lanes 64 goroutines made 132 threads.
#include "lane.h"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/SequenceNumber.h>
#include <ATen/ops/empty.h>
#include <dlfcn.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <pthread.h>

#include <string>

namespace tv {
namespace {

// How long a lane and a caller spin before they sleep: waking a thread costs about 50 microseconds, and
// a caller that had to wake the lane waits that much longer, rather than to be woken in turn.
constexpr auto kSpin = std::chrono::microseconds(20);
constexpr auto kSpinForWaking = std::chrono::microseconds(120);

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename Ready>
bool spin_until(Ready&& ready, std::chrono::microseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < 16; i++) {
      if (ready()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

struct Job {
  void (*fn)(void*);
  void* arg;
  std::atomic<bool> done{false};
};

// A symbol of a library that is already in the process: linking to libgomp or MKL could bring in a
// second copy.
template <typename F>
F* symbol(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
}

// glibc would give what a forward freed back to the system, and fetch it again, page by page, for the next one; and
// ATen asks for huge pages only where the environment says so. What the environment asks for stays.
void keep_memory() {
  constexpr const char* kHugePages = "THP_MEM_ALLOC_ENABLE";
  if (getenv(kHugePages) == nullptr) {
    setenv(kHugePages, "1", 0);
    at::empty({1});  // reads it, once
    unsetenv(kHugePages);
  }
#if defined(__GLIBC__)
  for (const char* name : {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"})
    if (getenv(name) != nullptr) return;
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that it takes
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

void set_mkl_threads(int n) {
  // at::set_num_threads sets MKL's number for the whole process; lanes with different counts need
  // their own.
  static auto* set_local = symbol<int(int)>("MKL_Set_Num_Threads_Local");
  if (set_local != nullptr) set_local(n);
}

class Lane {
 public:
  Lane(int index, int intra_threads) : intra_threads_(intra_threads) {
    std::thread t([this] { loop(); });
    // The kernel keeps 15 characters of a name.
    pthread_setname_np(t.native_handle(), ("tv-lane-" + std::to_string(index)).substr(0, 15).c_str());
    t.detach();
  }

  void run(Job& job) {
    next_.store(&job, std::memory_order_seq_cst);
    const bool waking = sleeping_.load(std::memory_order_seq_cst);
    if (waking) {
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_one();
    }
    auto done = [&] { return job.done.load(std::memory_order_acquire); };
    if (spin_until(done, waking ? kSpinForWaking : kSpin)) return;
    std::unique_lock<std::mutex> lock(done_mutex_);
    waiting_.store(true, std::memory_order_seq_cst);
    done_wake_.wait(lock, [&] { return job.done.load(std::memory_order_seq_cst); });
    waiting_.store(false, std::memory_order_relaxed);
  }

 private:
  void loop() {
    // The first get on a thread re-initialises from a value of the process, so it comes before the set.
    at::get_num_threads();
    at::set_num_threads(intra_threads_);
    set_mkl_threads(intra_threads_);
    for (;;) {
      Job* job = take();
      job->fn(job->arg);
      job->done.store(true, std::memory_order_seq_cst);
      // The job is gone from here on: its caller may have returned.
      if (waiting_.load(std::memory_order_seq_cst)) {
        std::lock_guard<std::mutex> lock(done_mutex_);
        done_wake_.notify_one();
      }
    }
  }

  Job* take() {
    Job* job = nullptr;
    // The plain load keeps the cache line shared while there is nothing.
    auto ready = [&] {
      return next_.load(std::memory_order_seq_cst) != nullptr &&
             (job = next_.exchange(nullptr, std::memory_order_seq_cst)) != nullptr;
    };
    if (spin_until(ready, kSpin)) return job;
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.store(true, std::memory_order_seq_cst);
    wake_.wait(lock, ready);
    sleeping_.store(false, std::memory_order_relaxed);
    return job;
  }

  const int intra_threads_;
  std::atomic<Job*> next_{nullptr};
  std::atomic<bool> sleeping_{false}, waiting_{false};
  std::mutex mutex_, done_mutex_;
  std::condition_variable wake_, done_wake_;
};

// Never destroyed: the threads use them until the process ends.
std::vector<Lane*>* lanes() {
  static auto* v = new std::vector<Lane*>();
  return v;
}
std::mutex lanes_mutex;

// Autograd numbers what it records, thread by thread, and goes back from the highest number to the lowest: the
// order in which gradients are summed. As the calls of one graph run on several threads, each goes on from
// where the last one ended, as in Python's one thread.
std::atomic<uint64_t> sequence{0};

void follow_sequence() {
  for (const uint64_t last = sequence.load(); at::sequence_number::peek() < last;)
    at::sequence_number::get_and_increment();
}

void lead_sequence() {
  const uint64_t here = at::sequence_number::peek();
  for (uint64_t last = sequence.load(); last < here && !sequence.compare_exchange_weak(last, here);) {
  }
}

}  // namespace

void one_thread_here() {
  thread_local const bool once = [] {
    at::get_num_threads();
    static auto* omp = symbol<void(int)>("omp_set_num_threads");
    if (omp != nullptr) omp(1);
    set_mkl_threads(1);
    return true;
  }();
  (void)once;
}

void run_on_lane(int32_t lane, void (*fn)(void*), void* arg) {
  if (lane < 0) {
    if (lane != kHere) one_thread_here();
    fn(arg);
    return;
  }
  if (static_cast<size_t>(lane) >= lanes()->size())
    throw Error(TV_INVALID_ARGUMENT,
                "lane " + std::to_string(lane) + ": got no such lane, want one of " + std::to_string(lanes()->size()));
  Job job{fn, arg};
  (*lanes())[static_cast<size_t>(lane)]->run(job);
}

ModeGuard::ModeGuard(const tv_mode& mode) {
  switch (mode.mode) {
    case 0:
      inference_.emplace();
      break;
    case 1:
      grad_.emplace(false);
      break;
    case 2:
      grad_.emplace(true);
      recording_ = true;
      follow_sequence();
      break;
    default:
      throw Error(TV_INVALID_ARGUMENT, "mode: got " + std::to_string(mode.mode) + ", want 0, 1 or 2");
  }
  if (mode.autocast != 0) {
    autocast_ = true;
    cpu_was_ = at::autocast::is_autocast_enabled(at::kCPU);
    cuda_was_ = at::autocast::is_autocast_enabled(at::kCUDA);
    cpu_dtype_was_ = at::autocast::get_autocast_dtype(at::kCPU);
    cuda_dtype_was_ = at::autocast::get_autocast_dtype(at::kCUDA);
    const auto dtype = static_cast<at::ScalarType>(mode.autocast - 1);
    at::autocast::set_autocast_enabled(at::kCPU, true);
    at::autocast::set_autocast_enabled(at::kCUDA, true);
    at::autocast::set_autocast_dtype(at::kCPU, dtype);
    at::autocast::set_autocast_dtype(at::kCUDA, dtype);
    at::autocast::increment_nesting();
  }
}

ModeGuard::~ModeGuard() {
  if (recording_) lead_sequence();
  if (!autocast_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, cpu_was_);
  at::autocast::set_autocast_enabled(at::kCUDA, cuda_was_);
  at::autocast::set_autocast_dtype(at::kCPU, cpu_dtype_was_);
  at::autocast::set_autocast_dtype(at::kCUDA, cuda_dtype_was_);
}

}  // namespace tv

extern "C" {

tv_status* tv_lanes_start(const int32_t* intra_threads, int32_t n) {
  return tv::guard([&] {
    tv::keep_memory();
    std::lock_guard<std::mutex> lock(tv::lanes_mutex);
    if (!tv::lanes()->empty()) throw tv::Error(TV_INVALID_ARGUMENT, "lanes: started already");
    for (int32_t i = 0; i < n; i++)
      if (intra_threads[i] < 1) throw tv::Error(TV_INVALID_ARGUMENT, "lanes: intra-op threads must be 1 or more");
    for (int32_t i = 0; i < n; i++) tv::lanes()->push_back(new tv::Lane(i, intra_threads[i]));
  });
}

tv_status* tv_trim_memory() {
  return tv::guard([] {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
  });
}

tv_status* tv_lane_threads(int32_t lane, int32_t* out) {
  return tv::run(tv_mode{1, 0, lane}, [&] { *out = at::get_num_threads(); });
}

}  // extern "C"
