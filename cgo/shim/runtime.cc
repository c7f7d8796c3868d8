// Facts and switches of the process.
#include "guard.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/native/DispatchStub.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/version.h>

#include "abi.h"

extern "C" {

uint64_t tv_abi_hash(void) { return TV_ABI_HASH; }

tv_status* tv_build_info(tv_buffer** out) {
  return tv::guard([&] {
    *out = new tv_buffer(
        "{\"torch\":\"" + tv::json_escape(TORCH_VERSION) + "\",\"config\":\"" + tv::json_escape(at::show_config()) +
        "\",\"cpu_capability\":\"" + tv::json_escape(at::get_cpu_capability()) + "\",\"parallel\":\"" +
        tv::json_escape(at::get_parallel_info()) + "\",\"cuda\":" + (at::hasCUDA() ? "true" : "false") + "}");
  });
}

void tv_live_counts(int64_t out[8]) {
  tv::quiet([&] {
    for (int k = 0; k < tv::kKinds; k++) out[k] = tv::live[k].load(std::memory_order_relaxed);
  });
}

tv_status* tv_manual_seed(uint64_t seed) {
  return tv::guard([&] { at::manual_seed(seed); });
}

tv_status* tv_set_flags(int32_t deterministic, int32_t tf32_matmul, int32_t tf32_cudnn, int32_t cudnn_benchmark) {
  return tv::guard([&] {
    auto& context = at::globalContext();
    if (deterministic >= 0) context.setDeterministicAlgorithms(deterministic != 0, false);
    if (tf32_matmul >= 0) context.setAllowTF32CuBLAS(tf32_matmul != 0);
    if (tf32_cudnn >= 0) context.setAllowTF32CuDNN(tf32_cudnn != 0);
    if (cudnn_benchmark >= 0) context.setBenchmarkCuDNN(cudnn_benchmark != 0);
  });
}

tv_status* tv_set_executor(int32_t profiling, int32_t optimize) {
  return tv::guard([&] {
    if (profiling >= 0) torch::jit::getProfilingMode() = profiling != 0;
    if (optimize >= 0) torch::jit::setGraphExecutorOptimize(optimize != 0);
  });
}

}  // extern "C"
