// The C interface between Go and libtorch. Plain C: no torch header is included here.
//
// Rules that hold for every function:
//  - A function that can fail returns an owned tv_status*: NULL means success. Results go through the
//    out-parameters behind it, which are untouched on failure. Free a status with tv_status_free.
//  - Handles that a function returns are owned by the caller; each kind has its own free function, and
//    freeing NULL is allowed. Inputs are borrowed for the length of the call unless it says otherwise.
//  - Text goes in as a pointer and a length, because Go strings do not end with a zero.
//  - No mode, error or thread setting outlives a call. C never calls Go.
#ifndef TORCHVIT_SHIM_H
#define TORCHVIT_SHIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef TV_BUILD
#define TV_API __attribute__((visibility("default")))
#else
#define TV_API
#endif

typedef struct tv_status tv_status;
typedef struct tv_tensor tv_tensor;
typedef struct tv_values tv_values;
typedef struct tv_module tv_module;
typedef struct tv_operator tv_operator;
typedef struct tv_buffer tv_buffer;
typedef struct tv_optimizer tv_optimizer;

// Codes of a status. Go maps each to a sentinel error.
enum {
  TV_INVALID_ARGUMENT = 1,
  TV_SHAPE = 2,
  TV_DTYPE = 3,
  TV_DEVICE = 4,
  TV_OUT_OF_MEMORY = 5,
  TV_IO = 6,
  TV_NOT_FOUND = 7,
  TV_VALUE = 8,
  TV_UNSUPPORTED = 9,
  TV_SCRIPT = 10,
  TV_RUNTIME = 11,
  TV_AUTOGRAD = 12,
};

// Kinds of a tv_node.
enum {
  TV_NONE = 0,
  TV_TENSOR = 1,
  TV_BOOL = 2,
  TV_INT = 3,
  TV_FLOAT = 4,
  TV_STRING = 5,
  TV_TUPLE = 6,
  TV_LIST = 7,
  TV_DICT = 8,
};

// A value of TorchScript is an array of nodes in pre-order: a tuple or list is followed by `count`
// values, a dict by `count` pairs of key and value. A string is text[i : i+count] of the text that
// travels with the nodes. In a list that comes out, `i` is the kind of its elements (-1: mixed); in a
// tensor that comes out, its number of elements. Tensors that go in are borrowed; tensors that come out
// are owned by the caller.
typedef struct {
  int32_t kind;
  int32_t count;
  int64_t i;
  double f;
  tv_tensor* tensor;
} tv_node;

// How a call runs. mode: 0 inference, 1 no_grad, 2 grad. autocast: 0 off, else a dtype code.
// lane: the permanent thread that runs it, or -1 for the calling thread, where libtorch then opens no
// parallel region.
typedef struct {
  int32_t mode;
  int32_t autocast;
  int32_t lane;
} tv_mode;

enum { TV_MAX_DIMS = 16 };

// All metadata of a tensor. dtype is c10::ScalarType plus one. device_type is c10::DeviceType
// (0 CPU, 1 CUDA). data is NULL for tensors without strided storage.
typedef struct {
  int32_t dtype;
  int32_t device_type;
  int32_t device_index;
  int32_t ndim;
  int64_t numel;
  int64_t itemsize;
  int64_t storage_offset;
  void* data;
  uint8_t defined;
  uint8_t contiguous;
  uint8_t requires_grad;
  uint8_t inference;
  uint8_t strided;
  int64_t sizes[TV_MAX_DIMS];
  int64_t strides[TV_MAX_DIMS];
} tv_meta;

// --- status ---------------------------------------------------------------------------------------

// The text pointers live as long as the status. message is one line, detail the full libtorch text.
TV_API void tv_status_read(const tv_status* s, int32_t* code, const char** message, int64_t* message_len,
                           const char** detail, int64_t* detail_len);
TV_API void tv_status_free(tv_status* s);

// --- runtime --------------------------------------------------------------------------------------

// The hash of this header that the shim was compiled with: the version handshake.
TV_API uint64_t tv_abi_hash(void);
// JSON with torch's version, build configuration, CPU capability and parallel information.
TV_API tv_status* tv_build_info(tv_buffer** out);
// Counts of live objects: tensors, values, modules, statuses, pins, buffers, optimizers, CUDA graphs.
TV_API void tv_live_counts(int64_t out[8]);
// Address of the number of pins that were released and not yet drained. Go reads it without a call.
TV_API const int64_t* tv_pins_pending(void);
// Takes up to cap tokens of released pins.
TV_API int64_t tv_pins_drain(uint64_t* tokens, int64_t cap);
// Sets the seed of every generator, as torch.manual_seed does.
TV_API tv_status* tv_manual_seed(uint64_t seed);
// Flags of at::globalContext: deterministic algorithms, TF32 in matmul and in cuDNN, cuDNN benchmark.
// -1 leaves a flag as it is.
TV_API tv_status* tv_set_flags(int32_t deterministic, int32_t tf32_matmul, int32_t tf32_cudnn, int32_t cudnn_benchmark);
// TorchScript executor switches of the process: profiling mode and graph optimisation; -1 leaves one.
TV_API tv_status* tv_set_executor(int32_t profiling, int32_t optimize);
// Loads a library of operators, for example torchvision's. The library stays loaded.
TV_API tv_status* tv_library_load(const char* path, int64_t path_len);

// --- lanes ----------------------------------------------------------------------------------------

// Starts n permanent threads; thread i uses intra_threads[i] intra-op threads. Once per process.
TV_API tv_status* tv_lanes_start(const int32_t* intra_threads, int32_t n);
// Gives memory that was freed back to the system: a lane keeps what a forward used for the next one.
TV_API tv_status* tv_trim_memory(void);
// What at::get_num_threads answers on that lane (on the calling thread for lane -1).
TV_API tv_status* tv_lane_threads(int32_t lane, int32_t* out);

// --- buffers: bytes owned by C --------------------------------------------------------------------

TV_API void tv_buffer_read(const tv_buffer* b, const void** data, int64_t* len);
TV_API void tv_buffer_free(tv_buffer* b);

// --- tensors --------------------------------------------------------------------------------------

// Wraps at::from_blob over memory of the caller. The tensor owns `token`: when libtorch drops the last
// reference to the memory, the token can be drained. strides may be NULL (row-major).
TV_API tv_status* tv_tensor_from_blob(void* data, const int64_t* sizes, const int64_t* strides, int32_t ndim,
                                      int32_t dtype, uint64_t token, tv_tensor** out);
// Wraps at::empty. pinned asks for page-locked memory (CPU only, needs CUDA).
TV_API tv_status* tv_tensor_empty(const int64_t* sizes, int32_t ndim, int32_t dtype, int32_t device_type,
                                  int32_t device_index, int32_t pinned, tv_tensor** out);
TV_API void tv_tensor_free(tv_tensor* t);
TV_API tv_status* tv_tensor_meta(const tv_tensor* t, tv_meta* out);
// Another handle to the same tensor.
TV_API tv_status* tv_tensor_alias(const tv_tensor* t, tv_tensor** out);
// Wraps Tensor.to; dtype 0 and device_type -1 leave them as they are.
TV_API tv_status* tv_tensor_to(const tv_tensor* t, int32_t dtype, int32_t device_type, int32_t device_index,
                               int32_t non_blocking, int32_t copy, tv_mode mode, tv_tensor** out);
TV_API tv_status* tv_tensor_contiguous(const tv_tensor* t, tv_mode mode, tv_tensor** out);
TV_API tv_status* tv_tensor_clone(const tv_tensor* t, tv_mode mode, tv_tensor** out);
// Wraps torch.equal: same shape and same values (NaN differs from itself).
TV_API tv_status* tv_tensor_equal(const tv_tensor* a, const tv_tensor* b, tv_mode mode, int32_t* out);
// Copies src into dst, which keeps its dtype and device: Tensor.copy_.
TV_API tv_status* tv_tensor_copy(tv_tensor* dst, const tv_tensor* src, int32_t non_blocking, tv_mode mode);
// DLPack: *out is a DLManagedTensor* that owns a reference; call its deleter when done.
TV_API tv_status* tv_tensor_to_dlpack(const tv_tensor* t, void** out);
// Takes over a DLManagedTensor*; its deleter runs when the tensor's memory is dropped. On failure it
// stays the caller's.
TV_API tv_status* tv_tensor_from_dlpack(void* managed, tv_tensor** out);
// Calls the deleter of a DLManagedTensor* that nobody took.
TV_API void tv_dlpack_free(void* managed);

// --- autograd -------------------------------------------------------------------------------------

// Wraps torch.autograd.backward: nodes are a list of roots and a list of their gradients, in which None
// stands for 1. Gradients are added to those that the leaves have.
TV_API tv_status* tv_backward(const tv_node* nodes, int32_t nodes_len, int32_t retain_graph, int32_t create_graph,
                              tv_mode mode);
// Wraps torch.autograd.grad: nodes are a list of outputs, one of inputs, and one of the outputs' gradients.
// The result is a list of a tensor for each input, None where it was not used.
TV_API tv_status* tv_gradients(const tv_node* nodes, int32_t nodes_len, int32_t retain_graph, int32_t create_graph,
                               int32_t allow_unused, tv_mode mode, tv_values** out);
// Tensor.grad, which shares the memory; *out is NULL where there is none.
TV_API tv_status* tv_tensor_grad(const tv_tensor* t, tv_tensor** out);
TV_API tv_status* tv_tensor_set_requires_grad(tv_tensor* t, int32_t on);
// The state of the CPU's generator: torch.get_rng_state and set_rng_state.
TV_API tv_status* tv_rng_state(tv_tensor** out);
TV_API tv_status* tv_set_rng_state(const tv_tensor* state);

// --- optimizers ---------------------------------------------------------------------------------------

// Kinds of an optimizer: classes of torch.optim.
enum {
  TV_SGD = 0,
  TV_ADAM = 1,
  TV_ADAMW = 2,
};

// What one step does to the next `count` parameters. momentum, dampening and nesterov are SGD's, the rest
// Adam's and AdamW's. fused takes torch's fused kernel.
typedef struct {
  int64_t count;
  double lr, weight_decay;
  double momentum, dampening;
  double beta1, beta2, eps;
  uint8_t nesterov, amsgrad, fused;
} tv_group;

// An optimizer of a list of tensors, to which it keeps references.
TV_API tv_status* tv_optimizer_new(int32_t kind, const tv_node* nodes, int32_t nodes_len, tv_optimizer** out);
TV_API void tv_optimizer_free(tv_optimizer* o);
// Changes the parameters that have a gradient: Optimizer.step. The groups count the parameters in order.
TV_API tv_status* tv_optimizer_step(tv_optimizer* o, const tv_group* groups, int32_t n, tv_mode mode);
// Drops the parameters' gradients: Optimizer.zero_grad(set_to_none=True).
TV_API tv_status* tv_optimizer_zero_grad(tv_optimizer* o);
// The state as a list of four tensors or None for each parameter: momentum_buffer of SGD; step, exp_avg,
// exp_avg_sq and max_exp_avg_sq of Adam and AdamW. They share the memory.
TV_API tv_status* tv_optimizer_state(tv_optimizer* o, tv_values** out);
// Copies such a list.
TV_API tv_status* tv_optimizer_set_state(tv_optimizer* o, const tv_node* nodes, int32_t nodes_len, tv_mode mode);
// torch.nn.utils.clip_grad_norm_ (of order 2) and clip_grad_value_ for a list of tensors.
TV_API tv_status* tv_clip_grad_norm(const tv_node* nodes, int32_t nodes_len, double max_norm, tv_mode mode,
                                    double* out);
TV_API tv_status* tv_clip_grad_value(const tv_node* nodes, int32_t nodes_len, double value, tv_mode mode);

// --- values ---------------------------------------------------------------------------------------

// Results that are not one plain node. Reading takes the tensors out: after it they belong to the
// caller, and freeing the values frees only tensors that were not taken.
TV_API void tv_values_read(tv_values* v, const tv_node** nodes, int64_t* count, const char** text, int64_t* text_len);
TV_API void tv_values_free(tv_values* v);

// --- operators ------------------------------------------------------------------------------------

// Finds the operators of a qualified name ("aten::softmax", or "aten::softmax.int" for one overload).
// The handle lives as long as the process.
TV_API tv_status* tv_operator_find(const char* name, int64_t name_len, tv_operator** out);
// The schemas of all overloads, one a line.
TV_API tv_status* tv_operator_schemas(const tv_operator* op, tv_buffer** out);
// Calls the overload that fits: nargs positional values and then nkwargs pairs of name and value. A
// result of one plain node goes to *out and *more is NULL; any other goes to *more.
TV_API tv_status* tv_operator_call(const tv_operator* op, const tv_node* nodes, int32_t nodes_len, int32_t nargs,
                                   int32_t nkwargs, const char* text, int64_t text_len, tv_mode mode, tv_node* out,
                                   tv_values** more);

// --- modules --------------------------------------------------------------------------------------

// Wraps torch::jit::load from a file (path) or from memory (data, when path is NULL).
// extra lists names of extra files (nodes: one list of strings); what was found is a dict in *found.
TV_API tv_status* tv_module_load(const char* path, int64_t path_len, const void* data, int64_t data_len,
                                 int32_t device_type, int32_t device_index, const tv_node* extra, int32_t extra_len,
                                 const char* text, int64_t text_len, tv_values** found, tv_module** out);
TV_API void tv_module_free(tv_module* m);
// A list of methods, each a tuple (name, schema, stateful), a list of attributes, each a tuple
// (name, type), and the training flag, as one tuple. The index of a method is its place in the list.
TV_API tv_status* tv_module_describe(tv_module* m, tv_values** out);
// Runs a method by its index.
TV_API tv_status* tv_module_call(tv_module* m, int32_t method, const tv_node* nodes, int32_t nodes_len, int32_t nargs,
                                 const char* text, int64_t text_len, tv_mode mode, tv_node* out, tv_values** more);
// Parameters (which = 0) or buffers (which = 1): a list of tuples (name, tensor) in the order of Python's
// named_parameters, a shared tensor once. They share the memory.
TV_API tv_status* tv_module_tensors(tv_module* m, int32_t which, tv_values** out);
TV_API tv_status* tv_module_get_attribute(tv_module* m, const char* name, int64_t name_len, tv_values** out);
TV_API tv_status* tv_module_set_attribute(tv_module* m, const char* name, int64_t name_len, const tv_node* nodes,
                                          int32_t nodes_len, const char* text, int64_t text_len);
TV_API tv_status* tv_module_train(tv_module* m, int32_t on);
// Moves parameters and buffers in place; dtype 0 and device_type -1 leave them as they are.
TV_API tv_status* tv_module_to(tv_module* m, int32_t dtype, int32_t device_type, int32_t device_index, tv_mode mode);
// Puts parameters and buffers of 4 dimensions into the memory format channels_last, in place.
TV_API tv_status* tv_module_channels_last(tv_module* m, tv_mode mode);
// Rewrites the module for speed, in place; bfloat16 says in which precision its matrices are multiplied. Results
// differ in their last bits from then on, and the module can be run and nothing else. *out: a tuple of a list, which
// has a tuple (method, linear, fused, attention, patch_embed, conv, roi_align, left) for each method that was
// rewritten, and a note.
TV_API tv_status* tv_module_rewrite(tv_module* m, int32_t bfloat16, tv_mode mode, tv_values** out);
// A copy with its own parameters, buffers and attributes.
TV_API tv_status* tv_module_clone(tv_module* m, tv_module** out);
// Serialises the module with extra files (nodes: one dict of strings).
TV_API tv_status* tv_module_save(tv_module* m, const tv_node* extra, int32_t extra_len, const char* text,
                                 int64_t text_len, tv_buffer** out);

// --- image kernels (no torch in them) -------------------------------------------------------------

// Pixels of bytes: value(y, x, c) = data[y * stride_row + x * stride_pixel + c * stride_channel]. Of RGB
// out of RGBA (3 channels, stride_channel 1, stride_pixel 4) the fourth byte of the last pixel is read too.
typedef struct {
  int64_t height, width, channels;
  int64_t stride_row, stride_pixel, stride_channel;
} tv_image_layout;

// What becomes of an image: the whole is resized to height x width, and the window at (top, left) of the
// result is produced; what lies outside the result is filled. filter is Pillow's number (0 nearest,
// 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming). box is the part of the source to resize
// (x0, y0, x1, y1), all zeros for the whole. pass_order: 0 as Pillow 13, 1 as Pillow 12 and before.
// kernel: 0 the fastest, 1 portable; the bits are the same. premultiply: the last of 2 or 4 channels is
// alpha, as in Pillow's LA and RGBA.
typedef struct {
  int64_t height, width;
  int64_t top, left, window_height, window_width;
  float box[4];
  uint8_t fill[4];
  int32_t filter;
  int32_t pass_order;
  int32_t kernel;
  int32_t premultiply;
} tv_image_plan;

// Pillow's Image.resize on 8-bit images to the bit, for 1 to 4 channels. Runs on the calling thread.
TV_API tv_status* tv_image_resize(const uint8_t* src, const tv_image_layout* layout, const tv_image_plan* plan,
                                  uint8_t* dst, int64_t stride_row, int64_t stride_pixel, int64_t stride_channel);
// The same, followed by table[c * 256 + value]: ToTensor and Normalize in one step. table holds 256
// values a channel; dst's strides count floats.
TV_API tv_status* tv_image_to_float(const uint8_t* src, const tv_image_layout* layout, const tv_image_plan* plan,
                                    const float* table, float* dst, int64_t stride_row, int64_t stride_pixel,
                                    int64_t stride_channel);

// --- for measurements -----------------------------------------------------------------------------

// Runs the method n times from C++ on a tensor and gives the seconds: what a call costs without Go.
TV_API tv_status* tv_bench_module_call(tv_module* m, int32_t method, const tv_tensor* input, tv_mode mode, int64_t n,
                                       double* seconds);
// Runs the overload that fits n times on the same positional values; choosing it is not measured.
TV_API tv_status* tv_bench_operator_call(const tv_operator* op, const tv_node* nodes, int32_t nodes_len, int32_t nargs,
                                         const char* text, int64_t text_len, tv_mode mode, int64_t n, double* seconds);

#ifdef __cplusplus
}
#endif
#endif
