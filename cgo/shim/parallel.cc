#include "parallel.h"

#include <dlfcn.h>

namespace tv {

namespace {

// libgomp's entry for a parallel region: code, its argument, the number of threads, flags.
using Region = void (*)(void (*)(void*), void*, unsigned, unsigned);

// That of the libgomp that libtorch has loaded, null where it has another OpenMP.
Region region() {
  static const Region found = []() -> Region {
    void* library = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) return nullptr;
    auto* symbol = dlsym(library, "GOMP_parallel");
    dlclose(library);
    return reinterpret_cast<Region>(symbol);
  }();
  return found;
}

}  // namespace

void on_threads(int64_t count, c10::function_ref<void()> work) {
  if (count <= 1 || at::in_parallel_region() || region() == nullptr) {
    work();
    return;
  }
  region()([](void* f) { (*static_cast<c10::function_ref<void()>*>(f))(); }, &work, static_cast<unsigned>(count), 0);
}

}  // namespace tv
