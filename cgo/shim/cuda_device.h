// What belongs to a device and not to a stream.
#pragma once

#include <mutex>

namespace tv {

// Held while a graph is recorded, and for what CUDA and PyTorch's allocator forbid meanwhile: waiting for the device,
// and giving its memory back.
inline std::mutex& device_mutex() {
  static auto* m = new std::mutex();
  return *m;
}

}  // namespace tv
