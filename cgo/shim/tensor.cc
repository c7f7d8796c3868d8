// Tensors: memory that crosses, metadata, moves between devices and dtypes, DLPack.
#include "lane.h"

#include <ATen/DLConvertor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>

namespace {

// A pin that was released. The node is made with the tensor, so that a deleter never allocates.
struct Pin : tv::Counted<tv::kPin> {
  explicit Pin(uint64_t token) : token(token) {}
  uint64_t token;
  Pin* next = nullptr;
};

std::atomic<Pin*> released{nullptr};
std::atomic<int64_t> pending{0};
static_assert(sizeof(std::atomic<int64_t>) == sizeof(int64_t), "Go reads the counter as an int64");

void link(Pin* pin) {
  pin->next = released.load(std::memory_order_relaxed);
  while (!released.compare_exchange_weak(pin->next, pin, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

void release_pin(void* p) {
  link(static_cast<Pin*>(p));
  pending.fetch_add(1, std::memory_order_release);
}

at::ScalarType scalar_type(int32_t dtype) {
  if (dtype < 1 || dtype > static_cast<int32_t>(at::ScalarType::NumOptions))
    throw tv::Error(TV_DTYPE, "dtype: got code " + std::to_string(dtype) + ", want a code of c10::ScalarType plus one");
  return static_cast<at::ScalarType>(dtype - 1);
}

const at::Tensor& defined(const tv_tensor* t) {
  if (!t->t.defined()) throw tv::Error(TV_VALUE, "tensor: got an undefined tensor");
  return t->t;
}

}  // namespace

extern "C" {

const int64_t* tv_pins_pending(void) { return reinterpret_cast<const int64_t*>(&pending); }

int64_t tv_pins_drain(uint64_t* tokens, int64_t cap) {
  int64_t n = 0;
  tv::quiet([&] {
    Pin* list = released.exchange(nullptr, std::memory_order_acquire);
    while (list != nullptr && n < cap) {
      Pin* next = list->next;
      tokens[n++] = list->token;
      delete list;
      list = next;
    }
    while (list != nullptr) {
      Pin* next = list->next;
      link(list);
      list = next;
    }
    pending.fetch_sub(n, std::memory_order_release);
  });
  return n;
}

tv_status* tv_tensor_from_blob(void* data, const int64_t* sizes, const int64_t* strides, int32_t ndim, int32_t dtype,
                               uint64_t token, tv_tensor** out) {
  return tv::guard([&] {
    // From here on the token comes back whatever happens: an error drops the maker, which owns the pin.
    auto maker = at::for_blob(data, at::IntArrayRef(sizes, static_cast<size_t>(ndim)));
    maker.context(new Pin(token), release_pin);
    const auto type = scalar_type(dtype);
    maker.options(at::TensorOptions(type)).target_device(at::Device(at::kCPU));
    if (strides != nullptr) maker.strides(at::IntArrayRef(strides, static_cast<size_t>(ndim)));
    *out = new tv_tensor(maker.make_tensor());
  });
}

tv_status* tv_tensor_empty(const int64_t* sizes, int32_t ndim, int32_t dtype, int32_t device_type, int32_t device_index,
                           int32_t pinned, tv_tensor** out) {
  return tv::guard([&] {
    // Outside inference mode: an ordinary tensor can be written in place in every mode.
    *out = new tv_tensor(
        at::empty(at::IntArrayRef(sizes, static_cast<size_t>(ndim)), at::TensorOptions(scalar_type(dtype))
                                                                         .device(tv::device(device_type, device_index))
                                                                         .pinned_memory(pinned != 0)));
  });
}

void tv_tensor_free(tv_tensor* t) {
  tv::quiet([&] { delete t; });
}

tv_status* tv_tensor_meta(const tv_tensor* h, tv_meta* out) {
  return tv::guard([&] {
    const at::Tensor& t = h->t;
    if (!t.defined()) {
      *out = tv_meta{};
      return;
    }
    if (t.dim() > TV_MAX_DIMS)
      throw tv::Error(TV_SHAPE, "tensor: got " + std::to_string(t.dim()) + " dimensions, want at most " +
                                    std::to_string(TV_MAX_DIMS));
    out->defined = 1;
    out->dtype = static_cast<int32_t>(t.scalar_type()) + 1;
    out->device_type = static_cast<int32_t>(t.device().type());
    out->device_index = t.device().has_index() ? t.device().index() : 0;
    out->ndim = static_cast<int32_t>(t.dim());
    out->numel = t.numel();
    out->itemsize = static_cast<int64_t>(t.itemsize());
    out->requires_grad = t.requires_grad();
    out->inference = t.is_inference();
    // A lazily conjugated or negated tensor's memory does not hold its values.
    const bool strided = t.layout() == at::kStrided && !t.is_conj() && !t.is_neg() && t.has_storage();
    out->strided = strided;
    out->storage_offset = strided ? t.storage_offset() : 0;
    out->contiguous = strided && t.is_contiguous();
    out->data = strided ? const_cast<void*>(t.const_data_ptr()) : nullptr;
    for (int64_t i = 0; i < t.dim(); i++) {
      out->sizes[i] = t.size(i);
      out->strides[i] = strided ? t.stride(i) : 0;
    }
  });
}

tv_status* tv_tensor_alias(const tv_tensor* t, tv_tensor** out) {
  return tv::guard([&] { *out = new tv_tensor(t->t); });
}

tv_status* tv_tensor_to(const tv_tensor* t, int32_t dtype, int32_t device_type, int32_t device_index,
                        int32_t non_blocking, int32_t copy, tv_mode mode, tv_tensor** out) {
  return tv::run(mode, [&] {
    const at::Tensor& in = defined(t);
    const auto to_dtype = dtype == 0 ? in.scalar_type() : scalar_type(dtype);
    const auto to_device = device_type < 0 ? in.device() : tv::device(device_type, device_index);
    *out = new tv_tensor(in.to(to_device, to_dtype, non_blocking != 0, copy != 0));
  });
}

tv_status* tv_tensor_contiguous(const tv_tensor* t, tv_mode mode, tv_tensor** out) {
  return tv::run(mode, [&] { *out = new tv_tensor(defined(t).contiguous()); });
}

tv_status* tv_tensor_clone(const tv_tensor* t, tv_mode mode, tv_tensor** out) {
  return tv::run(mode, [&] { *out = new tv_tensor(defined(t).clone()); });
}

tv_status* tv_tensor_equal(const tv_tensor* a, const tv_tensor* b, tv_mode mode, int32_t* out) {
  return tv::run(mode, [&] { *out = at::equal(defined(a), defined(b)); });
}

tv_status* tv_tensor_copy(tv_tensor* dst, const tv_tensor* src, int32_t non_blocking, tv_mode mode) {
  return tv::run(mode, [&] {
    // copy_ would broadcast; a caller who fills a batch wants an error instead.
    if (defined(dst).sizes() != defined(src).sizes())
      throw tv::Error(TV_SHAPE,
                      "copy: got a source of " + c10::str(src->t.sizes()) + ", want " + c10::str(dst->t.sizes()));
    dst->t.copy_(src->t, non_blocking != 0);
  });
}

tv_status* tv_tensor_to_dlpack(const tv_tensor* t, void** out) {
  return tv::guard([&] { *out = at::toDLPack(defined(t)); });
}

tv_status* tv_tensor_from_dlpack(void* managed, tv_tensor** out) {
  return tv::guard([&] {
    if (managed == nullptr) throw tv::Error(TV_INVALID_ARGUMENT, "from_dlpack: got NULL, want a DLManagedTensor");
    *out = new tv_tensor(at::fromDLPack(static_cast<DLManagedTensor*>(managed)));
  });
}

void tv_dlpack_free(void* managed) {
  tv::quiet([&] {
    auto* m = static_cast<DLManagedTensor*>(managed);
    if (m != nullptr && m->deleter != nullptr) m->deleter(m);
  });
}

}  // extern "C"
