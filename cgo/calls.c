// clang-format off

//go:build cgo

// Made by go generate from shim/shim.h. The functions that Go calls, each a jump to the shim's.

#include <dlfcn.h>
#include <stddef.h>

#include "calls.h"

static void* find(void* library, const char* name, const char** missing) {
  void* p = dlsym(library, name);
  if (p == NULL && *missing == NULL) *missing = name;
  return p;
}

static void (*p_tv_status_read)(const tv_status* s, int32_t* code, const char** message, int64_t* message_len, const char** detail, int64_t* detail_len);
static void (*p_tv_status_free)(tv_status* s);
static uint64_t (*p_tv_abi_hash)(void);
static tv_status* (*p_tv_build_info)(tv_buffer** out);
static void (*p_tv_live_counts)(int64_t out[8]);
static const int64_t* (*p_tv_pins_pending)(void);
static int64_t (*p_tv_pins_drain)(uint64_t* tokens, int64_t cap);
static tv_status* (*p_tv_manual_seed)(uint64_t seed);
static tv_status* (*p_tv_set_flags)(int32_t deterministic, int32_t tf32_matmul, int32_t tf32_cudnn, int32_t cudnn_benchmark);
static tv_status* (*p_tv_set_executor)(int32_t profiling, int32_t optimize);
static tv_status* (*p_tv_library_load)(const char* path, int64_t path_len);
static tv_status* (*p_tv_lanes_start)(const int32_t* intra_threads, int32_t n);
static tv_status* (*p_tv_trim_memory)(void);
static tv_status* (*p_tv_lane_threads)(int32_t lane, int32_t* out);
static void (*p_tv_buffer_read)(const tv_buffer* b, const void** data, int64_t* len);
static void (*p_tv_buffer_free)(tv_buffer* b);
static tv_status* (*p_tv_tensor_from_blob)(void* data, const int64_t* sizes, const int64_t* strides, int32_t ndim, int32_t dtype, uint64_t token, tv_tensor** out);
static tv_status* (*p_tv_tensor_empty)(const int64_t* sizes, int32_t ndim, int32_t dtype, int32_t device_type, int32_t device_index, int32_t pinned, tv_tensor** out);
static void (*p_tv_tensor_free)(tv_tensor* t);
static tv_status* (*p_tv_tensor_meta)(const tv_tensor* t, tv_meta* out);
static tv_status* (*p_tv_tensor_alias)(const tv_tensor* t, tv_tensor** out);
static tv_status* (*p_tv_tensor_to)(const tv_tensor* t, int32_t dtype, int32_t device_type, int32_t device_index, int32_t non_blocking, int32_t copy, tv_mode mode, tv_tensor** out);
static tv_status* (*p_tv_tensor_contiguous)(const tv_tensor* t, tv_mode mode, tv_tensor** out);
static tv_status* (*p_tv_tensor_clone)(const tv_tensor* t, tv_mode mode, tv_tensor** out);
static tv_status* (*p_tv_tensor_equal)(const tv_tensor* a, const tv_tensor* b, tv_mode mode, int32_t* out);
static tv_status* (*p_tv_tensor_copy)(tv_tensor* dst, const tv_tensor* src, int32_t non_blocking, tv_mode mode);
static tv_status* (*p_tv_tensor_to_dlpack)(const tv_tensor* t, void** out);
static tv_status* (*p_tv_tensor_from_dlpack)(void* managed, tv_tensor** out);
static void (*p_tv_dlpack_free)(void* managed);
static tv_status* (*p_tv_backward)(const tv_node* nodes, int32_t nodes_len, int32_t retain_graph, int32_t create_graph, tv_mode mode);
static tv_status* (*p_tv_gradients)(const tv_node* nodes, int32_t nodes_len, int32_t retain_graph, int32_t create_graph, int32_t allow_unused, tv_mode mode, tv_values** out);
static tv_status* (*p_tv_tensor_grad)(const tv_tensor* t, tv_tensor** out);
static tv_status* (*p_tv_tensor_set_requires_grad)(tv_tensor* t, int32_t on);
static tv_status* (*p_tv_rng_state)(tv_tensor** out);
static tv_status* (*p_tv_set_rng_state)(const tv_tensor* state);
static tv_status* (*p_tv_optimizer_new)(int32_t kind, const tv_node* nodes, int32_t nodes_len, tv_optimizer** out);
static void (*p_tv_optimizer_free)(tv_optimizer* o);
static tv_status* (*p_tv_optimizer_step)(tv_optimizer* o, const tv_group* groups, int32_t n, tv_mode mode);
static tv_status* (*p_tv_optimizer_zero_grad)(tv_optimizer* o);
static tv_status* (*p_tv_optimizer_state)(tv_optimizer* o, tv_values** out);
static tv_status* (*p_tv_optimizer_set_state)(tv_optimizer* o, const tv_node* nodes, int32_t nodes_len, tv_mode mode);
static tv_status* (*p_tv_clip_grad_norm)(const tv_node* nodes, int32_t nodes_len, double max_norm, tv_mode mode, double* out);
static tv_status* (*p_tv_clip_grad_value)(const tv_node* nodes, int32_t nodes_len, double value, tv_mode mode);
static void (*p_tv_values_read)(tv_values* v, const tv_node** nodes, int64_t* count, const char** text, int64_t* text_len);
static void (*p_tv_values_free)(tv_values* v);
static tv_status* (*p_tv_operator_find)(const char* name, int64_t name_len, tv_operator** out);
static tv_status* (*p_tv_operator_schemas)(const tv_operator* op, tv_buffer** out);
static tv_status* (*p_tv_operator_call)(const tv_operator* op, const tv_node* nodes, int32_t nodes_len, int32_t nargs, int32_t nkwargs, const char* text, int64_t text_len, tv_mode mode, tv_node* out, tv_values** more);
static tv_status* (*p_tv_module_load)(const char* path, int64_t path_len, const void* data, int64_t data_len, int32_t device_type, int32_t device_index, const tv_node* extra, int32_t extra_len, const char* text, int64_t text_len, tv_values** found, tv_module** out);
static void (*p_tv_module_free)(tv_module* m);
static tv_status* (*p_tv_module_describe)(tv_module* m, tv_values** out);
static tv_status* (*p_tv_module_call)(tv_module* m, int32_t method, const tv_node* nodes, int32_t nodes_len, int32_t nargs, const char* text, int64_t text_len, tv_mode mode, tv_node* out, tv_values** more);
static tv_status* (*p_tv_module_tensors)(tv_module* m, int32_t which, tv_values** out);
static tv_status* (*p_tv_module_get_attribute)(tv_module* m, const char* name, int64_t name_len, tv_values** out);
static tv_status* (*p_tv_module_set_attribute)(tv_module* m, const char* name, int64_t name_len, const tv_node* nodes, int32_t nodes_len, const char* text, int64_t text_len);
static tv_status* (*p_tv_module_train)(tv_module* m, int32_t on);
static tv_status* (*p_tv_module_to)(tv_module* m, int32_t dtype, int32_t device_type, int32_t device_index, tv_mode mode);
static tv_status* (*p_tv_module_channels_last)(tv_module* m, tv_mode mode);
static tv_status* (*p_tv_module_rewrite)(tv_module* m, int32_t bfloat16, tv_mode mode, tv_values** out);
static tv_status* (*p_tv_module_clone)(tv_module* m, tv_module** out);
static tv_status* (*p_tv_module_save)(tv_module* m, const tv_node* extra, int32_t extra_len, const char* text, int64_t text_len, tv_buffer** out);
static tv_status* (*p_tv_image_resize)(const uint8_t* src, const tv_image_layout* layout, const tv_image_plan* plan, uint8_t* dst, int64_t stride_row, int64_t stride_pixel, int64_t stride_channel);
static tv_status* (*p_tv_image_to_float)(const uint8_t* src, const tv_image_layout* layout, const tv_image_plan* plan, const float* table, float* dst, int64_t stride_row, int64_t stride_pixel, int64_t stride_channel);
static tv_status* (*p_tv_bench_module_call)(tv_module* m, int32_t method, const tv_tensor* input, tv_mode mode, int64_t n, double* seconds);
static tv_status* (*p_tv_bench_operator_call)(const tv_operator* op, const tv_node* nodes, int32_t nodes_len, int32_t nargs, const char* text, int64_t text_len, tv_mode mode, int64_t n, double* seconds);

const char* tvgo_resolve(void* library) {
  const char* missing = NULL;
  *(void**)&p_tv_status_read = find(library, "tv_status_read", &missing);
  *(void**)&p_tv_status_free = find(library, "tv_status_free", &missing);
  *(void**)&p_tv_abi_hash = find(library, "tv_abi_hash", &missing);
  *(void**)&p_tv_build_info = find(library, "tv_build_info", &missing);
  *(void**)&p_tv_live_counts = find(library, "tv_live_counts", &missing);
  *(void**)&p_tv_pins_pending = find(library, "tv_pins_pending", &missing);
  *(void**)&p_tv_pins_drain = find(library, "tv_pins_drain", &missing);
  *(void**)&p_tv_manual_seed = find(library, "tv_manual_seed", &missing);
  *(void**)&p_tv_set_flags = find(library, "tv_set_flags", &missing);
  *(void**)&p_tv_set_executor = find(library, "tv_set_executor", &missing);
  *(void**)&p_tv_library_load = find(library, "tv_library_load", &missing);
  *(void**)&p_tv_lanes_start = find(library, "tv_lanes_start", &missing);
  *(void**)&p_tv_trim_memory = find(library, "tv_trim_memory", &missing);
  *(void**)&p_tv_lane_threads = find(library, "tv_lane_threads", &missing);
  *(void**)&p_tv_buffer_read = find(library, "tv_buffer_read", &missing);
  *(void**)&p_tv_buffer_free = find(library, "tv_buffer_free", &missing);
  *(void**)&p_tv_tensor_from_blob = find(library, "tv_tensor_from_blob", &missing);
  *(void**)&p_tv_tensor_empty = find(library, "tv_tensor_empty", &missing);
  *(void**)&p_tv_tensor_free = find(library, "tv_tensor_free", &missing);
  *(void**)&p_tv_tensor_meta = find(library, "tv_tensor_meta", &missing);
  *(void**)&p_tv_tensor_alias = find(library, "tv_tensor_alias", &missing);
  *(void**)&p_tv_tensor_to = find(library, "tv_tensor_to", &missing);
  *(void**)&p_tv_tensor_contiguous = find(library, "tv_tensor_contiguous", &missing);
  *(void**)&p_tv_tensor_clone = find(library, "tv_tensor_clone", &missing);
  *(void**)&p_tv_tensor_equal = find(library, "tv_tensor_equal", &missing);
  *(void**)&p_tv_tensor_copy = find(library, "tv_tensor_copy", &missing);
  *(void**)&p_tv_tensor_to_dlpack = find(library, "tv_tensor_to_dlpack", &missing);
  *(void**)&p_tv_tensor_from_dlpack = find(library, "tv_tensor_from_dlpack", &missing);
  *(void**)&p_tv_dlpack_free = find(library, "tv_dlpack_free", &missing);
  *(void**)&p_tv_backward = find(library, "tv_backward", &missing);
  *(void**)&p_tv_gradients = find(library, "tv_gradients", &missing);
  *(void**)&p_tv_tensor_grad = find(library, "tv_tensor_grad", &missing);
  *(void**)&p_tv_tensor_set_requires_grad = find(library, "tv_tensor_set_requires_grad", &missing);
  *(void**)&p_tv_rng_state = find(library, "tv_rng_state", &missing);
  *(void**)&p_tv_set_rng_state = find(library, "tv_set_rng_state", &missing);
  *(void**)&p_tv_optimizer_new = find(library, "tv_optimizer_new", &missing);
  *(void**)&p_tv_optimizer_free = find(library, "tv_optimizer_free", &missing);
  *(void**)&p_tv_optimizer_step = find(library, "tv_optimizer_step", &missing);
  *(void**)&p_tv_optimizer_zero_grad = find(library, "tv_optimizer_zero_grad", &missing);
  *(void**)&p_tv_optimizer_state = find(library, "tv_optimizer_state", &missing);
  *(void**)&p_tv_optimizer_set_state = find(library, "tv_optimizer_set_state", &missing);
  *(void**)&p_tv_clip_grad_norm = find(library, "tv_clip_grad_norm", &missing);
  *(void**)&p_tv_clip_grad_value = find(library, "tv_clip_grad_value", &missing);
  *(void**)&p_tv_values_read = find(library, "tv_values_read", &missing);
  *(void**)&p_tv_values_free = find(library, "tv_values_free", &missing);
  *(void**)&p_tv_operator_find = find(library, "tv_operator_find", &missing);
  *(void**)&p_tv_operator_schemas = find(library, "tv_operator_schemas", &missing);
  *(void**)&p_tv_operator_call = find(library, "tv_operator_call", &missing);
  *(void**)&p_tv_module_load = find(library, "tv_module_load", &missing);
  *(void**)&p_tv_module_free = find(library, "tv_module_free", &missing);
  *(void**)&p_tv_module_describe = find(library, "tv_module_describe", &missing);
  *(void**)&p_tv_module_call = find(library, "tv_module_call", &missing);
  *(void**)&p_tv_module_tensors = find(library, "tv_module_tensors", &missing);
  *(void**)&p_tv_module_get_attribute = find(library, "tv_module_get_attribute", &missing);
  *(void**)&p_tv_module_set_attribute = find(library, "tv_module_set_attribute", &missing);
  *(void**)&p_tv_module_train = find(library, "tv_module_train", &missing);
  *(void**)&p_tv_module_to = find(library, "tv_module_to", &missing);
  *(void**)&p_tv_module_channels_last = find(library, "tv_module_channels_last", &missing);
  *(void**)&p_tv_module_rewrite = find(library, "tv_module_rewrite", &missing);
  *(void**)&p_tv_module_clone = find(library, "tv_module_clone", &missing);
  *(void**)&p_tv_module_save = find(library, "tv_module_save", &missing);
  *(void**)&p_tv_image_resize = find(library, "tv_image_resize", &missing);
  *(void**)&p_tv_image_to_float = find(library, "tv_image_to_float", &missing);
  *(void**)&p_tv_bench_module_call = find(library, "tv_bench_module_call", &missing);
  *(void**)&p_tv_bench_operator_call = find(library, "tv_bench_operator_call", &missing);
  return missing;
}

void tv_status_read(const tv_status* s, int32_t* code, const char** message, int64_t* message_len, const char** detail, int64_t* detail_len) { p_tv_status_read(s, code, message, message_len, detail, detail_len); }
void tv_status_free(tv_status* s) { p_tv_status_free(s); }
uint64_t tv_abi_hash(void) { return p_tv_abi_hash(); }
tv_status* tv_build_info(tv_buffer** out) { return p_tv_build_info(out); }
void tv_live_counts(int64_t out[8]) { p_tv_live_counts(out); }
const int64_t* tv_pins_pending(void) { return p_tv_pins_pending(); }
int64_t tv_pins_drain(uint64_t* tokens, int64_t cap) { return p_tv_pins_drain(tokens, cap); }
tv_status* tv_manual_seed(uint64_t seed) { return p_tv_manual_seed(seed); }
tv_status* tv_set_flags(int32_t deterministic, int32_t tf32_matmul, int32_t tf32_cudnn, int32_t cudnn_benchmark) { return p_tv_set_flags(deterministic, tf32_matmul, tf32_cudnn, cudnn_benchmark); }
tv_status* tv_set_executor(int32_t profiling, int32_t optimize) { return p_tv_set_executor(profiling, optimize); }
tv_status* tv_library_load(const char* path, int64_t path_len) { return p_tv_library_load(path, path_len); }
tv_status* tv_lanes_start(const int32_t* intra_threads, int32_t n) { return p_tv_lanes_start(intra_threads, n); }
tv_status* tv_trim_memory(void) { return p_tv_trim_memory(); }
tv_status* tv_lane_threads(int32_t lane, int32_t* out) { return p_tv_lane_threads(lane, out); }
void tv_buffer_read(const tv_buffer* b, const void** data, int64_t* len) { p_tv_buffer_read(b, data, len); }
void tv_buffer_free(tv_buffer* b) { p_tv_buffer_free(b); }
tv_status* tv_tensor_from_blob(void* data, const int64_t* sizes, const int64_t* strides, int32_t ndim, int32_t dtype, uint64_t token, tv_tensor** out) { return p_tv_tensor_from_blob(data, sizes, strides, ndim, dtype, token, out); }
tv_status* tv_tensor_empty(const int64_t* sizes, int32_t ndim, int32_t dtype, int32_t device_type, int32_t device_index, int32_t pinned, tv_tensor** out) { return p_tv_tensor_empty(sizes, ndim, dtype, device_type, device_index, pinned, out); }
void tv_tensor_free(tv_tensor* t) { p_tv_tensor_free(t); }
tv_status* tv_tensor_meta(const tv_tensor* t, tv_meta* out) { return p_tv_tensor_meta(t, out); }
tv_status* tv_tensor_alias(const tv_tensor* t, tv_tensor** out) { return p_tv_tensor_alias(t, out); }
tv_status* tv_tensor_to(const tv_tensor* t, int32_t dtype, int32_t device_type, int32_t device_index, int32_t non_blocking, int32_t copy, tv_mode mode, tv_tensor** out) { return p_tv_tensor_to(t, dtype, device_type, device_index, non_blocking, copy, mode, out); }
tv_status* tv_tensor_contiguous(const tv_tensor* t, tv_mode mode, tv_tensor** out) { return p_tv_tensor_contiguous(t, mode, out); }
tv_status* tv_tensor_clone(const tv_tensor* t, tv_mode mode, tv_tensor** out) { return p_tv_tensor_clone(t, mode, out); }
tv_status* tv_tensor_equal(const tv_tensor* a, const tv_tensor* b, tv_mode mode, int32_t* out) { return p_tv_tensor_equal(a, b, mode, out); }
tv_status* tv_tensor_copy(tv_tensor* dst, const tv_tensor* src, int32_t non_blocking, tv_mode mode) { return p_tv_tensor_copy(dst, src, non_blocking, mode); }
tv_status* tv_tensor_to_dlpack(const tv_tensor* t, void** out) { return p_tv_tensor_to_dlpack(t, out); }
tv_status* tv_tensor_from_dlpack(void* managed, tv_tensor** out) { return p_tv_tensor_from_dlpack(managed, out); }
void tv_dlpack_free(void* managed) { p_tv_dlpack_free(managed); }
tv_status* tv_backward(const tv_node* nodes, int32_t nodes_len, int32_t retain_graph, int32_t create_graph, tv_mode mode) { return p_tv_backward(nodes, nodes_len, retain_graph, create_graph, mode); }
tv_status* tv_gradients(const tv_node* nodes, int32_t nodes_len, int32_t retain_graph, int32_t create_graph, int32_t allow_unused, tv_mode mode, tv_values** out) { return p_tv_gradients(nodes, nodes_len, retain_graph, create_graph, allow_unused, mode, out); }
tv_status* tv_tensor_grad(const tv_tensor* t, tv_tensor** out) { return p_tv_tensor_grad(t, out); }
tv_status* tv_tensor_set_requires_grad(tv_tensor* t, int32_t on) { return p_tv_tensor_set_requires_grad(t, on); }
tv_status* tv_rng_state(tv_tensor** out) { return p_tv_rng_state(out); }
tv_status* tv_set_rng_state(const tv_tensor* state) { return p_tv_set_rng_state(state); }
tv_status* tv_optimizer_new(int32_t kind, const tv_node* nodes, int32_t nodes_len, tv_optimizer** out) { return p_tv_optimizer_new(kind, nodes, nodes_len, out); }
void tv_optimizer_free(tv_optimizer* o) { p_tv_optimizer_free(o); }
tv_status* tv_optimizer_step(tv_optimizer* o, const tv_group* groups, int32_t n, tv_mode mode) { return p_tv_optimizer_step(o, groups, n, mode); }
tv_status* tv_optimizer_zero_grad(tv_optimizer* o) { return p_tv_optimizer_zero_grad(o); }
tv_status* tv_optimizer_state(tv_optimizer* o, tv_values** out) { return p_tv_optimizer_state(o, out); }
tv_status* tv_optimizer_set_state(tv_optimizer* o, const tv_node* nodes, int32_t nodes_len, tv_mode mode) { return p_tv_optimizer_set_state(o, nodes, nodes_len, mode); }
tv_status* tv_clip_grad_norm(const tv_node* nodes, int32_t nodes_len, double max_norm, tv_mode mode, double* out) { return p_tv_clip_grad_norm(nodes, nodes_len, max_norm, mode, out); }
tv_status* tv_clip_grad_value(const tv_node* nodes, int32_t nodes_len, double value, tv_mode mode) { return p_tv_clip_grad_value(nodes, nodes_len, value, mode); }
void tv_values_read(tv_values* v, const tv_node** nodes, int64_t* count, const char** text, int64_t* text_len) { p_tv_values_read(v, nodes, count, text, text_len); }
void tv_values_free(tv_values* v) { p_tv_values_free(v); }
tv_status* tv_operator_find(const char* name, int64_t name_len, tv_operator** out) { return p_tv_operator_find(name, name_len, out); }
tv_status* tv_operator_schemas(const tv_operator* op, tv_buffer** out) { return p_tv_operator_schemas(op, out); }
tv_status* tv_operator_call(const tv_operator* op, const tv_node* nodes, int32_t nodes_len, int32_t nargs, int32_t nkwargs, const char* text, int64_t text_len, tv_mode mode, tv_node* out, tv_values** more) { return p_tv_operator_call(op, nodes, nodes_len, nargs, nkwargs, text, text_len, mode, out, more); }
tv_status* tv_module_load(const char* path, int64_t path_len, const void* data, int64_t data_len, int32_t device_type, int32_t device_index, const tv_node* extra, int32_t extra_len, const char* text, int64_t text_len, tv_values** found, tv_module** out) { return p_tv_module_load(path, path_len, data, data_len, device_type, device_index, extra, extra_len, text, text_len, found, out); }
void tv_module_free(tv_module* m) { p_tv_module_free(m); }
tv_status* tv_module_describe(tv_module* m, tv_values** out) { return p_tv_module_describe(m, out); }
tv_status* tv_module_call(tv_module* m, int32_t method, const tv_node* nodes, int32_t nodes_len, int32_t nargs, const char* text, int64_t text_len, tv_mode mode, tv_node* out, tv_values** more) { return p_tv_module_call(m, method, nodes, nodes_len, nargs, text, text_len, mode, out, more); }
tv_status* tv_module_tensors(tv_module* m, int32_t which, tv_values** out) { return p_tv_module_tensors(m, which, out); }
tv_status* tv_module_get_attribute(tv_module* m, const char* name, int64_t name_len, tv_values** out) { return p_tv_module_get_attribute(m, name, name_len, out); }
tv_status* tv_module_set_attribute(tv_module* m, const char* name, int64_t name_len, const tv_node* nodes, int32_t nodes_len, const char* text, int64_t text_len) { return p_tv_module_set_attribute(m, name, name_len, nodes, nodes_len, text, text_len); }
tv_status* tv_module_train(tv_module* m, int32_t on) { return p_tv_module_train(m, on); }
tv_status* tv_module_to(tv_module* m, int32_t dtype, int32_t device_type, int32_t device_index, tv_mode mode) { return p_tv_module_to(m, dtype, device_type, device_index, mode); }
tv_status* tv_module_channels_last(tv_module* m, tv_mode mode) { return p_tv_module_channels_last(m, mode); }
tv_status* tv_module_rewrite(tv_module* m, int32_t bfloat16, tv_mode mode, tv_values** out) { return p_tv_module_rewrite(m, bfloat16, mode, out); }
tv_status* tv_module_clone(tv_module* m, tv_module** out) { return p_tv_module_clone(m, out); }
tv_status* tv_module_save(tv_module* m, const tv_node* extra, int32_t extra_len, const char* text, int64_t text_len, tv_buffer** out) { return p_tv_module_save(m, extra, extra_len, text, text_len, out); }
tv_status* tv_image_resize(const uint8_t* src, const tv_image_layout* layout, const tv_image_plan* plan, uint8_t* dst, int64_t stride_row, int64_t stride_pixel, int64_t stride_channel) { return p_tv_image_resize(src, layout, plan, dst, stride_row, stride_pixel, stride_channel); }
tv_status* tv_image_to_float(const uint8_t* src, const tv_image_layout* layout, const tv_image_plan* plan, const float* table, float* dst, int64_t stride_row, int64_t stride_pixel, int64_t stride_channel) { return p_tv_image_to_float(src, layout, plan, table, dst, stride_row, stride_pixel, stride_channel); }
tv_status* tv_bench_module_call(tv_module* m, int32_t method, const tv_tensor* input, tv_mode mode, int64_t n, double* seconds) { return p_tv_bench_module_call(m, method, input, mode, n, seconds); }
tv_status* tv_bench_operator_call(const tv_operator* op, const tv_node* nodes, int32_t nodes_len, int32_t nargs, const char* text, int64_t text_len, tv_mode mode, int64_t n, double* seconds) { return p_tv_bench_operator_call(op, nodes, nodes_len, nargs, text, text_len, mode, n, seconds); }

static tv_status* (*p_tv_cuda_device_count)(int32_t* out);
static tv_status* (*p_tv_cuda_synchronize)(int32_t device);
static tv_status* (*p_tv_cuda_memory_stats)(int32_t device, int64_t out[4]);
static tv_status* (*p_tv_cuda_empty_cache)(void);
static tv_status* (*p_tv_cuda_device_name)(int32_t device, tv_buffer** out);
static tv_status* (*p_tv_cuda_graph_capture)(tv_module* m, int32_t method, const tv_tensor* input, int32_t warmup, tv_mode mode, tv_cuda_graph** out, tv_node* result, tv_values** more, int32_t* recording);
static tv_status* (*p_tv_cuda_graph_replay)(tv_cuda_graph* g, const tv_tensor* input, tv_mode mode);
static void (*p_tv_cuda_graph_free)(tv_cuda_graph* g);

const char* tvgo_resolve_cuda(void* library) {
  const char* missing = NULL;
  *(void**)&p_tv_cuda_device_count = find(library, "tv_cuda_device_count", &missing);
  *(void**)&p_tv_cuda_synchronize = find(library, "tv_cuda_synchronize", &missing);
  *(void**)&p_tv_cuda_memory_stats = find(library, "tv_cuda_memory_stats", &missing);
  *(void**)&p_tv_cuda_empty_cache = find(library, "tv_cuda_empty_cache", &missing);
  *(void**)&p_tv_cuda_device_name = find(library, "tv_cuda_device_name", &missing);
  *(void**)&p_tv_cuda_graph_capture = find(library, "tv_cuda_graph_capture", &missing);
  *(void**)&p_tv_cuda_graph_replay = find(library, "tv_cuda_graph_replay", &missing);
  *(void**)&p_tv_cuda_graph_free = find(library, "tv_cuda_graph_free", &missing);
  return missing;
}

tv_status* tv_cuda_device_count(int32_t* out) { return p_tv_cuda_device_count(out); }
tv_status* tv_cuda_synchronize(int32_t device) { return p_tv_cuda_synchronize(device); }
tv_status* tv_cuda_memory_stats(int32_t device, int64_t out[4]) { return p_tv_cuda_memory_stats(device, out); }
tv_status* tv_cuda_empty_cache(void) { return p_tv_cuda_empty_cache(); }
tv_status* tv_cuda_device_name(int32_t device, tv_buffer** out) { return p_tv_cuda_device_name(device, out); }
tv_status* tv_cuda_graph_capture(tv_module* m, int32_t method, const tv_tensor* input, int32_t warmup, tv_mode mode, tv_cuda_graph** out, tv_node* result, tv_values** more, int32_t* recording) { return p_tv_cuda_graph_capture(m, method, input, warmup, mode, out, result, more, recording); }
tv_status* tv_cuda_graph_replay(tv_cuda_graph* g, const tv_tensor* input, tv_mode mode) { return p_tv_cuda_graph_replay(g, input, mode); }
void tv_cuda_graph_free(tv_cuda_graph* g) { p_tv_cuda_graph_free(g); }

