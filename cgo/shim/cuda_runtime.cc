// What needs CUDA's own symbols. Built as a second library, opened only where CUDA is the plan.
#include "guard.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>

#include "cuda_device.h"
#include "cuda_shim.h"

extern "C" {

tv_status* tv_cuda_device_count(int32_t* out) {
  return tv::guard([&] { *out = c10::cuda::device_count(); });
}

tv_status* tv_cuda_synchronize(int32_t device) {
  return tv::guard([&] {
    const std::lock_guard<std::mutex> lock(tv::device_mutex());
    const auto before = c10::cuda::current_device();
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    c10::cuda::device_synchronize();
    c10::cuda::set_device(before);
  });
}

tv_status* tv_cuda_memory_stats(int32_t device, int64_t out[4]) {
  return tv::guard([&] {
    using c10::CachingAllocator::StatType;
    const auto all = static_cast<size_t>(StatType::AGGREGATE);
    const auto s = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
    out[0] = s.allocated_bytes[all].current;
    out[1] = s.allocated_bytes[all].peak;
    out[2] = s.reserved_bytes[all].current;
    out[3] = s.reserved_bytes[all].peak;
  });
}

tv_status* tv_cuda_empty_cache(void) {
  return tv::guard([&] {
    const std::lock_guard<std::mutex> lock(tv::device_mutex());
    c10::cuda::CUDACachingAllocator::emptyCache();
  });
}

tv_status* tv_cuda_device_name(int32_t device, tv_buffer** out) {
  return tv::guard([&] {
    // ATen's getDeviceProperties would need the headers of cuBLAS, cuSPARSE and cuSOLVER.
    cudaDeviceProp p;
    C10_CUDA_CHECK(cudaGetDeviceProperties(&p, device));
    *out = new tv_buffer(tv::json_escape(p.name));
  });
}

}  // extern "C"
