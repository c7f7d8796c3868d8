// The part of the C interface that needs CUDA. The rules of shim.h hold.
#ifndef TORCHVIT_CUDA_SHIM_H
#define TORCHVIT_CUDA_SHIM_H

#include "shim.h"

#ifdef __cplusplus
extern "C" {
#endif

TV_API tv_status* tv_cuda_device_count(int32_t* out);
TV_API tv_status* tv_cuda_synchronize(int32_t device);
// Bytes: allocated now, allocated at peak, reserved now, reserved at peak (torch.cuda.memory_stats).
TV_API tv_status* tv_cuda_memory_stats(int32_t device, int64_t out[4]);
TV_API tv_status* tv_cuda_empty_cache(void);
TV_API tv_status* tv_cuda_device_name(int32_t device, tv_buffer** out);

// A method of one tensor, recorded as a CUDA graph.
typedef struct tv_cuda_graph tv_cuda_graph;
// Runs the method with the input warmup times, 1 at least, and records the next run; nothing else may use the module
// meanwhile. A replay reads the input's memory, which stays, and writes the memory of the result, which is as
// tv_module_call gives it. *recording: whether what failed is the recording.
TV_API tv_status* tv_cuda_graph_capture(tv_module* m, int32_t method, const tv_tensor* input, int32_t warmup,
                                        tv_mode mode, tv_cuda_graph** out, tv_node* result, tv_values** more,
                                        int32_t* recording);
// Copies the input, of the recorded one's shape, dtype and device, and starts the recorded work, on the lane's current
// stream; one replay at a time.
TV_API tv_status* tv_cuda_graph_replay(tv_cuda_graph* g, const tv_tensor* input, tv_mode mode);
TV_API void tv_cuda_graph_free(tv_cuda_graph* g);

#ifdef __cplusplus
}
#endif
#endif
