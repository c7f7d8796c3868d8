// Methods recorded as CUDA graphs: torch.cuda.graph.
#include "guard.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "cuda_device.h"
#include "cuda_shim.h"
#include "lane.h"

struct tv_cuda_graph : tv::Counted<tv::kCUDAGraph> {
  explicit tv_cuda_graph(at::Tensor x) : input(std::move(x)) {}
  at::cuda::CUDAGraph graph;
  at::Tensor input;
};

namespace tv {
namespace {

// The method's result, which owns its tensors.
struct Result {
  ~Result() {
    if (node.kind == TV_TENSOR) tv_tensor_free(node.tensor);
    tv_values_free(more);
  }
  tv_node node{};
  tv_values* more = nullptr;
};

void call(tv_module* m, int32_t method, const tv_tensor* input, tv_mode mode, Result* result) {
  mode.lane = kHere;
  tv_node argument{};
  argument.kind = TV_TENSOR;
  argument.tensor = const_cast<tv_tensor*>(input);
  tv_status* failed = tv_module_call(m, method, &argument, 1, 1, nullptr, 0, mode, &result->node, &result->more);
  if (failed != nullptr) throw Failed{failed};
}

// Waits for the device, now and at its end.
struct Settled {
  Settled() { c10::cuda::device_synchronize(); }
  ~Settled() {
    quiet([] { c10::cuda::device_synchronize(); });
  }
};

// A device's stream for recording: what the allocator keeps for a stream serves the next recording. Under the mutex.
c10::cuda::CUDAStream recording_stream(at::DeviceIndex device) {
  static auto* streams = new std::map<at::DeviceIndex, c10::cuda::CUDAStream>();
  const auto found = streams->find(device);
  if (found != streams->end()) return found->second;
  return streams->emplace(device, c10::cuda::getStreamFromPool(false, device)).first->second;
}

// Records the method on the current stream, which must not be the default one.
void record(tv_module* m, int32_t method, const tv_tensor* input, const tv_mode& mode, at::cuda::CUDAGraph* graph,
            Result* result) {
  // Calls of other threads go on meanwhile, except for those that wait for the whole device.
  graph->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
  try {
    call(m, method, input, mode, result);
  } catch (...) {
    // What failed has ended the capture: this cleans up, and fails too.
    quiet([&] { graph->capture_end(); });
    (void)cudaGetLastError();
    throw;
  }
  graph->capture_end();
}

}  // namespace
}  // namespace tv

extern "C" {

tv_status* tv_cuda_graph_capture(tv_module* m, int32_t method, const tv_tensor* input, int32_t warmup, tv_mode mode,
                                 tv_cuda_graph** out, tv_node* result, tv_values** more, int32_t* recording) {
  return tv::run(mode, [&] {
    const auto device = input->t.device();
    TORCH_CHECK(device.is_cuda(), "graph: got an input on ", device, ", want one on a CUDA device");
    const std::lock_guard<std::mutex> lock(tv::device_mutex());
    const c10::cuda::CUDAGuard on(device);
    const auto stream = tv::recording_stream(device.index());
    auto graph = std::make_unique<tv_cuda_graph>(input->t);
    tv::Result recorded;
    const tv::Settled settled;  // the input is there, and what was begun is done, also where it failed
    {
      // On the stream of the recording, to which cuBLAS's workspaces belong.
      const c10::cuda::CUDAStreamGuard aside(stream);
      for (int32_t k = 0; k < std::max(warmup, 1); k++) {
        tv::Result dropped;
        tv::call(m, method, input, mode, &dropped);
      }
      stream.synchronize();
      c10::cuda::CUDACachingAllocator::emptyCache();  // as torch.cuda.graph does
      *recording = 1;
      tv::record(m, method, input, mode, &graph->graph, &recorded);
      *recording = 0;
    }
    *result = std::exchange(recorded.node, tv_node{});
    *more = std::exchange(recorded.more, nullptr);
    *out = graph.release();
  });
}

tv_status* tv_cuda_graph_replay(tv_cuda_graph* g, const tv_tensor* input, tv_mode mode) {
  return tv::run(mode, [&] {
    const c10::cuda::CUDAGuard on(g->input.device());
    g->input.copy_(input->t, true);
    g->graph.replay();
  });
}

void tv_cuda_graph_free(tv_cuda_graph* g) {
  tv::quiet([&] { delete g; });
}

}  // extern "C"
