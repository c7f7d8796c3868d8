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

#ifdef __cplusplus
}
#endif
#endif
