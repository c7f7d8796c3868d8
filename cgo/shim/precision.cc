// The precisions Fast and BFloat16.
//
// A module is frozen, so that its weights are constants of its graphs, and the graphs are rewritten: linear layers
// become oneDNN's, or gemm.h's, with the weights in the layout of the kernels and with the activation, the layer scale
// and the residual that follow fused into them; attention in plain operators becomes one call; a convolution that
// embeds patches becomes a linear layer, and one of 3x3 winograd.h's where gemm.h is for the processor; roi_align uses
// all threads. Weights are packed one after the other, and each original goes before the next one is packed.
#include "precision.h"

#include <algorithm>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/freeze_module.h>
#include <torch/csrc/jit/passes/frozen_conv_folding.h>
#include <torch/csrc/jit/passes/frozen_linear_folding.h>
#include <torch/csrc/jit/passes/peephole.h>
#include <torch/library.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "gemm.h"
#include "guard.h"
#include "parallel.h"
#include "winograd.h"

namespace tv {

// A linear layer or a convolution as its kernels want it; the features of a convolution are its channels.
struct Layer {
  enum Form {
    kPlain,     // (out_features, in_features)
    kOneDNN,    // opaque, as mkldnn::_reorder_linear_weight gives it
    kPanels,    // as pack_panels gives it
    kWinograd,  // as pack_winograd gives it
  };
  at::Tensor weight;
  std::optional<at::Tensor> bias;   // (out_features)
  std::string activation = "none";  // as mkldnn::_linear_pointwise names it
  std::string algorithm = "none";   // of gelu: none or tanh
  int64_t in_features = 0, out_features = 0;
  at::ScalarType dtype = at::kFloat;
  Form form = kPlain;
  bool keep_dtype = true;      // whether a result in bfloat16 stays so; otherwise it is float32
  bool channels_last = false;  // whether a convolution's weight was
};

// The layers that the graphs of a module name by number: a graph cannot hold them itself.
class Layers {
 public:
  ~Layers() {
    std::unique_lock<std::shared_mutex> lock(mutex());
    for (const int64_t id : ids_) all().erase(id);
  }

  int64_t add(std::shared_ptr<const Layer> layer) {
    std::unique_lock<std::shared_mutex> lock(mutex());
    static int64_t last = 0;
    all()[++last] = std::move(layer);
    ids_.push_back(last);
    return last;
  }

  static std::shared_ptr<const Layer> get(int64_t id) {
    std::shared_lock<std::shared_mutex> lock(mutex());
    const auto found = all().find(id);
    TORCH_CHECK(found != all().end(), "torchvit: got layer ", id, ", want one that was made by this process");
    return found->second;
  }

 private:
  using Map = std::unordered_map<int64_t, std::shared_ptr<const Layer>>;
  // Never destroyed: modules may go after them.
  static Map& all() {
    static auto* map = new Map();
    return *map;
  }
  static std::shared_mutex& mutex() {
    static auto* m = new std::shared_mutex();
    return *m;
  }
  std::vector<int64_t> ids_;
};

namespace {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;
using OptionalTensor = std::optional<at::Tensor>;

// --- operators ------------------------------------------------------------------------------------

template <typename F>
c10::TypedOperatorHandle<F> find(const char* name, const char* overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<F>();
}

at::Tensor pointwise(const at::Tensor& x, const Layer& layer) {
  static const auto op = find<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, std::string_view,
                                         c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>)>(
      "mkldnn::_linear_pointwise", "");
  return op.call(x, layer.weight, layer.bias, layer.activation, c10::List<std::optional<at::Scalar>>(),
                 layer.algorithm);
}

at::Tensor pointwise_add(const at::Tensor& x, const at::Tensor& other, const Layer& layer) {
  static const auto op = find<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const OptionalTensor&,
                                         std::string_view)>("mkldnn::_linear_pointwise", "binary");
  return op.call(x, other, layer.weight, layer.bias, "add");
}

// Whether oneDNN takes bfloat16 here; where the processor has no instructions for it, it is emulated.
bool takes_bfloat16() {
  static const auto op = find<bool()>("mkldnn::_is_mkldnn_bf16_supported", "");
  return at::globalContext().hasMKLDNN() && op.call();
}

bool has_bfloat16_instructions() {
#if defined(__x86_64__)
  unsigned int a = 0, b = 0, c = 0, d = 0;
  const bool amx = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & (1U << 22)) != 0;
  const bool avx512 = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1U << 5)) != 0;
  return amx || avx512;
#else
  return takes_bfloat16();
#endif
}

at::Tensor pack(const at::Tensor& weight) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_reorder_linear_weight", "");
  torch::jit::Stack stack{weight, c10::IValue()};
  op.callBoxed(&stack);
  return stack.at(0).toTensor();
}

at::Tensor activate(const at::Tensor& x, const Layer& layer) {
  if (layer.activation == "gelu") return at::gelu(x, layer.algorithm);
  if (layer.activation == "relu") return at::relu(x);
  if (layer.activation == "swish") return at::silu(x);
  return x;
}

// residual + y in float32, y in bfloat16: at::add would convert element by element.
at::Tensor add_bfloat16(const at::Tensor& residual, const at::Tensor& y) {
  auto out = at::empty_like(residual);
  const float* r = residual.const_data_ptr<float>();
  const auto* b = reinterpret_cast<const uint16_t*>(y.const_data_ptr<at::BFloat16>());
  float* o = out.mutable_data_ptr<float>();
  constexpr int64_t kChunk = 1 << 15;
  each_index((out.numel() + kChunk - 1) / kChunk, [&](int64_t chunk) {
    for (int64_t i = chunk * kChunk; i < std::min(out.numel(), (chunk + 1) * kChunk); i++) {
      const uint32_t bits = static_cast<uint32_t>(b[i]) << 16;
      float f;
      memcpy(&f, &bits, sizeof f);
      o[i] = r[i] + f;
    }
  });
  return out;
}

// activation(x @ weight^T + bias), plus the residual where there is one, of y's own form.
at::Tensor product(const at::Tensor& x, const Layer& layer, const OptionalTensor& residual,
                   at::ArrayRef<int64_t> sizes) {
  if (layer.form == Layer::kOneDNN) return residual ? pointwise_add(x, *residual, layer) : pointwise(x, layer);
  if (layer.form == Layer::kPlain) {
    auto y = activate(at::linear(x, layer.weight, layer.bias), layer);
    return residual ? y.add_(*residual) : y;
  }
  auto y = at::empty(sizes, x.options());
  Epilogue epilogue;
  if (layer.bias) epilogue.bias = layer.bias->const_data_ptr<float>();
  if (residual) epilogue.residual = residual->const_data_ptr<float>();
  const bool fused = layer.activation == "relu" || (layer.activation == "gelu" && layer.algorithm == "none");
  if (fused) epilogue.activation = layer.activation == "relu" ? Activation::kReLU : Activation::kGELU;
  gemm(x.const_data_ptr<float>(), x.numel() / layer.in_features, layer.in_features,
       layer.weight.const_data_ptr<float>(), layer.out_features, epilogue, y.mutable_data_ptr<float>());
  return fused ? y : activate(y, layer);
}

at::Tensor linear(const at::Tensor& x, int64_t id, const OptionalTensor& residual) {
  const auto layer = Layers::get(id);
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == layer->in_features, "linear: got ", x.sizes(), ", want the last dimension ",
              layer->in_features);
  TORCH_CHECK(x.is_floating_point(), "linear: got ", x.scalar_type(), ", want a floating dtype");
  const auto in = x.scalar_type() == layer->dtype ? x.contiguous() : x.to(layer->dtype).contiguous();
  auto sizes = x.sizes().vec();
  sizes.back() = layer->out_features;
  const bool fits = residual && layer->activation == "none" && in.numel() != 0 && residual->sizes() == sizes &&
                    residual->scalar_type() == layer->dtype && residual->is_contiguous();
  if (fits) return product(in, *layer, residual, sizes);
  auto y = in.numel() == 0 ? at::empty(sizes, in.options()) : product(in, *layer, std::nullopt, sizes);
  if (!residual) return layer->keep_dtype ? y : y.to(at::kFloat);
  if (y.scalar_type() == at::kBFloat16 && residual->scalar_type() == at::kFloat && residual->sizes() == y.sizes() &&
      residual->is_contiguous() && y.is_contiguous())
    return add_bfloat16(*residual, y);
  return at::add(*residual, y);
}

// (B, N, 3 * E) -> (B, N, E)
at::Tensor self_attention(const at::Tensor& qkv, int64_t num_heads) {
  const int64_t b = qkv.size(0), n = qkv.size(1), e = qkv.size(2) / 3;
  const auto parts = qkv.view({b, n, 3, num_heads, e / num_heads}).permute({2, 0, 3, 1, 4}).unbind(0);
  return at::scaled_dot_product_attention(parts[0], parts[1], parts[2]).transpose(1, 2).reshape({b, n, e});
}

// softmax(q @ k^T * scale) @ v; k comes as the second matrix of the product, (..., head_dim, N). single says that the
// softmax is asked for in float32.
at::Tensor attention(const at::Tensor& q, const at::Tensor& kt, const at::Tensor& v, double scale, bool single) {
  const bool whole = q.dim() == 4 && kt.dim() == 4 && v.dim() == 4 && q.size(0) == v.size(0) &&
                     q.size(1) == v.size(1) && kt.size(0) == v.size(0) && kt.size(1) == v.size(1) &&
                     q.scalar_type() == v.scalar_type() && kt.scalar_type() == v.scalar_type() && q.numel() > 0 &&
                     (!single || q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16);
  if (!whole) {
    const auto dtype = single ? std::optional<at::ScalarType>(at::kFloat) : std::nullopt;
    const auto weights = at::softmax(at::matmul(q, kt).mul(scale), -1, dtype);
    // In bfloat16 only where a rewritten layer kept it.
    return at::matmul(v.scalar_type() == at::kBFloat16 ? weights.to(at::kBFloat16) : weights, v);
  }
  return at::scaled_dot_product_attention(q, kt.transpose(-2, -1), v, {}, 0.0, false, scale);
}

// A convolution whose kernel is its stride: (B, C, H, W) -> (B, out_features, H/h, W/w), channels last.
at::Tensor patch_embed(const at::Tensor& x, int64_t id, int64_t h, int64_t w) {
  TORCH_CHECK(x.dim() == 3 || x.dim() == 4, "patch_embed: got ", x.sizes(), ", want 3 or 4 dimensions");
  const auto batch = x.dim() == 4 ? x : x.unsqueeze(0);
  const int64_t b = batch.size(0), c = batch.size(1), rows = batch.size(2) / h, columns = batch.size(3) / w;
  TORCH_CHECK(rows > 0 && columns > 0, "patch_embed: got ", x.sizes(), ", want at least one patch of ", h, "x", w);
  const auto patches = batch.narrow(2, 0, rows * h)
                           .narrow(3, 0, columns * w)
                           .unflatten(3, {columns, w})
                           .unflatten(2, {rows, h})
                           .permute({0, 2, 4, 1, 3, 5})
                           .reshape({b, rows * columns, c * h * w});
  const auto y = linear(patches, id, std::nullopt).view({b, rows, columns, -1}).permute({0, 3, 1, 2});
  return x.dim() == 4 ? y : y.squeeze(0);
}

// (B, C, H, W) -> (B, out_features, H + 2 * height - 2, W + 2 * width - 2), padded with zeros; channels last where x
// or the weight is, as torch's.
at::Tensor conv3x3(const at::Tensor& x, int64_t id, int64_t height, int64_t width) {
  const auto layer = Layers::get(id);
  TORCH_CHECK((x.dim() == 3 || x.dim() == 4) && x.size(-3) == layer->in_features, "conv3x3: got ", x.sizes(),
              ", want 3 or 4 dimensions and ", layer->in_features, " channels");
  TORCH_CHECK(x.is_floating_point(), "conv3x3: got ", x.scalar_type(), ", want a floating dtype");
  const auto batch = (x.dim() == 4 ? x : x.unsqueeze(0)).to(at::kFloat);
  Winograd p{};
  p.batch = batch.size(0);
  p.height = batch.size(2);
  p.width = batch.size(3);
  p.in_channels = layer->in_features;
  p.out_channels = layer->out_features;
  p.padding_height = height;
  p.padding_width = width;
  TORCH_CHECK(p.out_height() > 0 && p.out_width() > 0, "conv3x3: got ", x.sizes(), " and padding ", height, ", ", width,
              ", want at least 3x3");
  const auto in = batch.contiguous(at::MemoryFormat::ChannelsLast);
  auto y =
      at::empty({p.batch, p.out_channels, p.out_height(), p.out_width()}, in.options(), at::MemoryFormat::ChannelsLast);
  p.x = in.const_data_ptr<float>();
  p.weight = layer->weight.const_data_ptr<float>();
  p.bias = layer->bias ? layer->bias->const_data_ptr<float>() : nullptr;
  p.relu = layer->activation == "relu";
  p.y = y.mutable_data_ptr<float>();
  if (y.numel() != 0) winograd(p);
  if (!p.relu) y = activate(y, *layer);
  // Not contiguous(), which would leave the strides of one pixel.
  if (!layer->channels_last && batch.suggest_memory_format() != at::MemoryFormat::ChannelsLast)
    y = y.clone(at::MemoryFormat::Contiguous);
  return x.dim() == 4 ? y : y.squeeze(0);
}

// torchvision's, which works on one thread, a few boxes at a time: the same bits.
at::Tensor roi_align(const at::Tensor& x, const at::Tensor& rois, double spatial_scale, int64_t height, int64_t width,
                     int64_t sampling_ratio, bool aligned) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("torchvision::roi_align", "");
  const auto in = x.contiguous();
  const auto pooled = [&](const at::Tensor& boxes) {
    torch::jit::Stack stack{in, boxes, spatial_scale, height, width, sampling_ratio, aligned};
    op.callBoxed(&stack);
    return stack.at(0).toTensor();
  };
  constexpr int64_t kBoxes = 8;
  const int64_t count = rois.dim() == 2 ? rois.size(0) : 0, parts = (count + kBoxes - 1) / kBoxes;
  if (parts <= 1 || at::get_num_threads() == 1 || x.dim() != 4) return pooled(rois);
  auto all = at::empty({count, x.size(1), height, width}, x.options());
  std::vector<std::exception_ptr> errors(parts);
  const at::ThreadLocalState state;
  each_index(parts, [&](int64_t i) {
    const at::ThreadLocalStateGuard guard(state);
    try {
      const int64_t n = std::min(kBoxes, count - i * kBoxes);
      all.narrow(0, i * kBoxes, n).copy_(pooled(rois.narrow(0, i * kBoxes, n)));
    } catch (...) {
      errors[i] = std::current_exception();
    }
  });
  for (const auto& e : errors)
    if (e) std::rethrow_exception(e);
  return all;
}

TORCH_LIBRARY(torchvit, m) {
  m.def("linear(Tensor x, int layer, Tensor? residual) -> Tensor");
  m.def("self_attention(Tensor qkv, int num_heads) -> Tensor");
  m.def("attention(Tensor q, Tensor kt, Tensor v, float scale, bool single) -> Tensor");
  m.def("patch_embed(Tensor x, int layer, int height, int width) -> Tensor");
  m.def("conv3x3(Tensor x, int layer, int padding_height, int padding_width) -> Tensor");
  m.def(
      "roi_align(Tensor x, Tensor rois, float spatial_scale, int height, int width, int sampling_ratio, bool aligned) "
      "-> Tensor");
}

TORCH_LIBRARY_IMPL(torchvit, CPU, m) {
  m.impl("linear", linear);
  m.impl("self_attention", self_attention);
  m.impl("attention", attention);
  m.impl("patch_embed", patch_embed);
  m.impl("conv3x3", conv3x3);
  m.impl("roi_align", roi_align);
}

// --- rewriting ------------------------------------------------------------------------------------

c10::Symbol symbol(const char* name) { return c10::Symbol::fromQualString(name); }

bool is(const Node* n, const char* name) { return n->kind() == symbol(name); }

// The constant that a value is.
OptionalTensor tensor_of(const Value* v) {
  auto i = torch::jit::toIValue(v);
  if (!i || !i->isTensor()) return std::nullopt;
  return i->toTensor();
}

template <typename F>
void each(Block* block, const F& f) {
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    Node* n = *it;
    ++it;
    for (Block* inner : n->blocks()) each(inner, f);
    f(n);
  }
}

// Gives freed memory back to the system.
void trim() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

void replace(Node* n, Value* with) {
  n->output()->replaceAllUsesWith(with);
  n->destroy();
}

Value* constant(Node* before, const c10::IValue& v) {
  torch::jit::WithInsertPoint at(before);
  return before->owningGraph()->insertConstant(v);
}

// What running without gradients and autocast decides, and dropout.
void specialise(std::shared_ptr<Graph>& graph) {
  each(graph->block(), [](Node* n) {
    if (n->outputs().size() != 1) return;
    if (is(n, "aten::is_grad_enabled") || is(n, "aten::is_autocast_enabled") || is(n, "prim::requires_grad"))
      replace(n, constant(n, false));
    else if ((is(n, "aten::__is__") || is(n, "aten::__isnot__")) && n->input(0) == n->input(1))
      replace(n, constant(n, is(n, "aten::__is__")));
    else if ((is(n, "aten::dropout") || is(n, "aten::dropout_") || is(n, "aten::feature_dropout")) &&
             torch::jit::toIValue(n->input(2)) == c10::IValue(false))
      replace(n, n->input(0));
    else if (is(n, "aten::to") && n->inputs().size() == 5 && is(n->input(0)->node(), "aten::softmax") &&
             torch::jit::toIValue(n->input(1)) == torch::jit::toIValue(n->input(0)->node()->input(2)) &&
             torch::jit::toIValue(n->input(1)) == c10::IValue(static_cast<int64_t>(at::kFloat)) &&
             torch::jit::toIValue(n->input(3)) == c10::IValue(false) &&
             torch::jit::toIValue(n->input(4)) == c10::IValue())
      replace(n, n->input(0));  // float32 already, as transformers writes it
  });
  torch::jit::ConstantPropagation(graph);
  torch::jit::PeepholeOptimize(graph);
  torch::jit::EliminateDeadCode(graph);
}

bool writes(const Node* n) {
  if (n->kind() == c10::prim::SetAttr || n->kind() == c10::prim::CallMethod || n->kind() == c10::prim::CallFunction)
    return true;
  const auto* schema = n->maybeSchema();
  if (schema != nullptr && schema->is_mutable()) return true;
  for (const Block* inner : n->blocks())
    for (const Node* node : inner->nodes())
      if (writes(node)) return true;
  return false;
}

Node* only_user(const Value* v) { return v->uses().size() == 1 ? v->uses()[0].user : nullptr; }

// A layer in a graph, with what is fused into it.
struct Site {
  enum Kind { kLinear, kPatchEmbed, kConv3x3 };
  Node* node;  // aten::linear, aten::conv2d or aten::_convolution
  Kind kind = kLinear;
  std::vector<Node*> tail;  // what follows and is fused, in order
  int residual = -1;        // which input of the last node of the tail
  OptionalTensor gamma;     // LayerScale
  std::string activation = "none", algorithm = "none";
  std::vector<int64_t> size;  // of a patch, or the padding of a convolution
  bool bfloat16 = false, keep_dtype = true;

  Value* weight() const { return node->input(1); }
  Value* bias() const { return node->input(2); }
  Node* last() const { return tail.empty() ? node : tail.back(); }
};

bool is_float_matrix(const at::Tensor& t) {
  return t.defined() && t.device().is_cpu() && t.layout() == at::kStrided && t.scalar_type() == at::kFloat;
}

// Whether the layer can run where last is: both in one block, and nothing between them writes but what is fused.
bool can_move(const Site& site, Node* last) {
  const Block* block = site.node->owningBlock();
  if (block != last->owningBlock()) return false;
  Node* n = site.node->next();
  for (; n != last && n != block->return_node(); n = n->next())
    if (writes(n) && std::find(site.tail.begin(), site.tail.end(), n) == site.tail.end()) return false;
  return n == last;
}

// The layer's output times a vector of its channels.
bool take_gamma(Site* site, const std::unordered_set<const Node*>& taken) {
  Node* n = only_user(site->last()->output());
  if (n == nullptr || taken.count(n) != 0 || !(is(n, "aten::mul") || is(n, "aten::mul_")) || n->inputs().size() != 2)
    return false;
  if (is(n, "aten::mul_") && n->input(0) != site->last()->output()) return false;
  const auto gamma = tensor_of(n->input(n->input(0) == site->last()->output() ? 1 : 0));
  if (!gamma || !is_float_matrix(*gamma) || gamma->dim() != 1 || gamma->size(0) != tensor_of(site->weight())->size(0) ||
      !can_move(*site, n))
    return false;
  site->gamma = *gamma;
  site->tail.push_back(n);
  return true;
}

bool take_activation(Site* site, const std::unordered_set<const Node*>& taken) {
  Node* n = only_user(site->last()->output());
  if (n == nullptr || taken.count(n) != 0 || !can_move(*site, n)) return false;
  if (is(n, "aten::gelu")) {
    const auto approximate = torch::jit::toIValue(n->input(1));
    if (!approximate || !approximate->isString()) return false;
    site->activation = "gelu";
    site->algorithm = approximate->toStringRef();
  } else if (is(n, "aten::relu") || is(n, "aten::relu_")) {
    site->activation = "relu";
  } else if (is(n, "aten::silu") || is(n, "aten::silu_")) {
    site->activation = "swish";
  } else {
    return false;
  }
  site->tail.push_back(n);
  return true;
}

bool take_residual(Site* site, const std::unordered_set<const Node*>& taken) {
  Value* y = site->last()->output();
  Node* n = only_user(y);
  if (n == nullptr || taken.count(n) != 0 || n->inputs().size() != 3 || !is(n, "aten::add")) return false;
  const auto alpha = torch::jit::toIValue(n->input(2));
  const int k = n->input(0) == y ? 1 : 0;
  Value* other = n->input(k);
  if (!alpha || !alpha->isInt() || alpha->toInt() != 1 || other == y ||
      other->type()->kind() != c10::TypeKind::TensorType || !can_move(*site, n))
    return false;
  site->residual = k;
  site->tail.push_back(n);
  return true;
}

class Rewriter {
 public:
  Rewriter(bool bfloat16, std::shared_ptr<Layers> layers) : bfloat16_(bfloat16), layers_(std::move(layers)) {}

  // Finds what can be replaced; nothing of it is packed yet. The method whose graph comes first decides what stays in
  // float32.
  void scan(std::shared_ptr<Graph>& graph, Rewritten::Count* count) {
    each(graph->block(), [&](Node* n) { expand_native_attention(n, count); });
    each(graph->block(), [&](Node* n) { fuse_attention(n, count); });
    each(graph->block(), [&](Node* n) { share_roi_align(n, count); });
    std::vector<Site> found;
    each(graph->block(), [&](Node* n) {
      if (taken_.count(n) != 0) return;
      Site site;
      site.node = n;
      if (is(n, "aten::linear")) {
        if (!constant_layer(site, 2)) {
          count->left++;
          return;
        }
      } else if (is(n, "aten::conv2d") || is(n, "aten::_convolution")) {
        if (!convolution(&site)) return;
      } else {
        return;
      }
      if (site.kind == Site::kPatchEmbed) {
        count->patch_embed++;
      } else if (site.kind == Site::kConv3x3) {
        take_activation(&site, taken_);
        count->conv++;
        count->fused += static_cast<int64_t>(site.tail.size());
      } else {
        if (!take_gamma(&site, taken_)) take_activation(&site, taken_);
        if (site.activation == "none") take_residual(&site, taken_);
        count->linear++;
        count->fused += static_cast<int64_t>(site.tail.size());
      }
      taken_.insert(site.tail.begin(), site.tail.end());
      found.push_back(std::move(site));
    });
    for (auto& site : found) {
      if (bfloat16_) {
        // A layer is held once: what the first method found holds for the others.
        const auto* data = tensor_of(site.weight())->const_data_ptr();
        site.bfloat16 = site.kind != Site::kConv3x3 && !final_.emplace(data, is_final(site.last())).first->second;
        site.keep_dtype = site.residual < 0 && stays_inside(site.last()->output());
      }
      sites_[same(site)].push_back(std::move(site));
    }
  }

  // Packs one weight after the other.
  void pack_all() {
    size_t packed = 0;
    for (auto& [k, sites] : sites_) {
      std::optional<Layer> shape;
      for (auto& site : sites) {
        if (!shape) {
          packed += tensor_of(site.weight())->nbytes();
          shape = prepared(site);
        }
        Layer layer = *shape;
        layer.activation = site.activation;
        layer.algorithm = site.algorithm;
        layer.keep_dtype = site.keep_dtype;
        put(site, layers_->add(std::make_shared<const Layer>(std::move(layer))));
      }
      sites.clear();
      // Originals were allocated by another thread perhaps: what is free there does not serve this one.
      if (packed > size_t{64} << 20) {
        trim();
        packed = 0;
      }
    }
    trim();
  }

 private:
  // Which numbers a layer has: its weight, bias and scale, and how they are held.
  using Key =
      std::tuple<const void*, std::vector<int64_t>, std::vector<int64_t>, const void*, const void*, bool, Site::Kind>;

  static Key key(const Site& site) {
    const auto weight = *tensor_of(site.weight());
    const auto bias = tensor_of(site.bias());
    return {weight.const_data_ptr(),
            weight.sizes().vec(),
            weight.strides().vec(),
            bias && bias->defined() ? bias->const_data_ptr() : nullptr,
            site.gamma ? site.gamma->const_data_ptr() : nullptr,
            site.bfloat16,
            site.kind};
  }

  // The key of a site with the same numbers: folding a batch norm makes a new weight for each method.
  Key same(const Site& site) const {
    const auto equal = [](const OptionalTensor& a, const OptionalTensor& b) {
      const bool have = a && a->defined();
      return have == (b && b->defined()) && (!have || (a->strides() == b->strides() && at::equal(*a, *b)));
    };
    const auto own = key(site);
    if (site.kind != Site::kConv3x3 || sites_.count(own) != 0) return own;
    for (const auto& [k, sites] : sites_) {
      const auto& other = sites.front();
      if (other.kind == site.kind && equal(tensor_of(other.weight()), tensor_of(site.weight())) &&
          equal(tensor_of(other.bias()), tensor_of(site.bias())))
        return k;
    }
    return own;
  }

  static bool is_view(const Node* n) {
    static const std::unordered_set<c10::Symbol> views{
        symbol("aten::view"),        symbol("aten::reshape"), symbol("aten::permute"),   symbol("aten::transpose"),
        symbol("aten::unbind"),      symbol("aten::split"),   symbol("aten::chunk"),     symbol("aten::select"),
        symbol("aten::contiguous"),  symbol("aten::flatten"), symbol("aten::unflatten"), symbol("aten::slice"),
        symbol("aten::__getitem__"), symbol("aten::squeeze"), symbol("aten::unsqueeze"), symbol("prim::ListUnpack"),
    };
    return views.count(n->kind()) != 0;
  }

  // What a value is a view of.
  static const Value* origin(const Value* v) {
    while (is_view(v->node())) v = v->node()->input(0);
    return v;
  }

  // Whether bfloat16 is all right for everything that is done with a value: views of it, layers that take any dtype,
  // and attention whose operands all come from it, as they must have one dtype.
  static bool stays_inside(const Value* v) {
    static const std::unordered_set<c10::Symbol> questions{symbol("aten::size"), symbol("aten::dim"),
                                                           symbol("aten::len")};
    return std::all_of(v->uses().begin(), v->uses().end(), [](const auto& use) {
      const Node* user = use.user;
      if (questions.count(user->kind()) != 0) return true;
      if (is(user, "torchvit::self_attention")) return stays_inside(user->output());
      if (is(user, "torchvit::attention") || is(user, "aten::scaled_dot_product_attention")) {
        const auto* from = origin(user->input(0));
        return use.offset < 3 && origin(user->input(1)) == from && origin(user->input(2)) == from &&
               (is(user, "torchvit::attention") || torch::jit::toIValue(user->input(3)).has_value()) &&
               stays_inside(user->output());
      }
      if (is(user, "aten::linear")) {
        Site site;
        site.node = const_cast<Node*>(user);
        return use.offset == 0 && constant_layer(site, 2);
      }
      return is_view(user) && use.offset == 0 &&
             std::all_of(user->outputs().begin(), user->outputs().end(), stays_inside);
    });
  }

  // Whether a layer's numbers are the answer, which no further layer takes. Those layers stay in float32.
  static bool is_final(const Node* n) {
    std::vector<const Node*> todo{n};
    std::unordered_set<const Node*> seen{n};
    while (!todo.empty()) {
      const Node* at = todo.back();
      todo.pop_back();
      for (const Value* out : at->outputs()) {
        for (const auto& use : out->uses()) {
          const Node* user = use.user;
          if (is(user, "aten::linear") || is(user, "aten::conv2d") || is(user, "aten::_convolution") ||
              is(user, "torchvit::attention") || is(user, "torchvit::self_attention") ||
              is(user, "aten::scaled_dot_product_attention") || is(user, "aten::matmul") || !user->blocks().empty())
            return false;
          // What a block gives goes on behind it.
          if (user->kind() == c10::prim::Return && user->owningBlock()->owningNode() != nullptr)
            user = user->owningBlock()->owningNode();
          if (seen.insert(user).second) todo.push_back(user);
        }
      }
    }
    return true;
  }

  static bool constant_layer(const Site& site, int64_t dim) {
    const auto weight = tensor_of(site.weight());
    if (!weight || !is_float_matrix(*weight) || weight->dim() != dim || weight->numel() == 0) return false;
    const auto bias = torch::jit::toIValue(site.bias());
    if (!bias) return false;
    return bias->isNone() || !bias->isTensor() || !bias->toTensor().defined() ||
           (is_float_matrix(bias->toTensor()) && bias->toTensor().dim() == 1 &&
            bias->toTensor().size(0) == weight->size(0));  // one of size 1 would be spread
  }

  static std::optional<std::vector<int64_t>> ints(const Value* v) {
    const auto i = torch::jit::toIValue(v);
    if (!i || !i->isIntList()) return std::nullopt;
    return i->toIntVector();
  }

  // A convolution that is replaced, whose node is aten::conv2d(x, weight, bias, stride, padding, dilation, groups), or
  // a trace's aten::_convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, ...):
  // one whose kernel is its stride, or of 3x3 with stride 1 and many channels.
  static bool convolution(Site* site) {
    if (!constant_layer(*site, 4)) return false;
    const bool traced = is(site->node, "aten::_convolution");
    if (traced && torch::jit::toIValue(site->node->input(6)) != c10::IValue(false)) return false;
    const auto weight = *tensor_of(site->weight());
    const std::vector<int64_t> kernel{weight.size(2), weight.size(3)}, one{1, 1};
    const auto groups = torch::jit::toIValue(site->node->input(traced ? 8 : 6));
    const auto stride = ints(site->node->input(3)), padding = ints(site->node->input(4));
    if (!groups || !groups->isInt() || groups->toInt() != 1 || ints(site->node->input(5)) != one || !padding)
      return false;
    if (kernel != one && stride == kernel && *padding == std::vector<int64_t>{0, 0}) {
      site->kind = Site::kPatchEmbed;
      site->size = kernel;
      return true;
    }
    const auto many = [](int64_t channels) {
      return channels >= kWinogradMinimum && channels % kWinogradChannels == 0;
    };
    if (kernel != std::vector<int64_t>{3, 3} || stride != one || padding->size() != 2 || (*padding)[0] < 0 ||
        (*padding)[1] < 0 || !has_gemm() || !many(weight.size(0)) || !many(weight.size(1)))
      return false;
    site->kind = Site::kConv3x3;
    site->size = *padding;
    return true;
  }

  Layer prepared(const Site& site) const {
    c10::InferenceMode guard(false);
    at::NoGradGuard no_grad;
    auto weight = tensor_of(site.weight())->detach();
    if (site.kind == Site::kPatchEmbed) weight = weight.flatten(1);
    Layer layer;
    const auto bias = tensor_of(site.bias());
    if (bias && bias->defined()) layer.bias = bias->detach().contiguous();
    if (site.gamma) {
      weight = weight * site.gamma->unsqueeze(1);
      if (layer.bias) layer.bias = *layer.bias * *site.gamma;
    }
    layer.out_features = weight.size(0);
    layer.in_features = weight.size(1);
    if (site.kind == Site::kConv3x3) {
      layer.form = Layer::kWinograd;
      layer.channels_last = weight.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
      layer.weight = pack_winograd(weight);
      return layer;
    }
    if (site.bfloat16) {
      layer.dtype = at::kBFloat16;
      weight = weight.to(at::kBFloat16);
      if (layer.bias) layer.bias = layer.bias->to(at::kBFloat16);
    }
    weight = weight.contiguous();
    if (layer.dtype == at::kFloat && has_gemm()) {
      layer.form = Layer::kPanels;
      weight = pack_panels(weight);
    } else if (at::globalContext().hasMKLDNN() && (layer.dtype == at::kFloat || takes_bfloat16())) {
      layer.form = Layer::kOneDNN;
      weight = pack(weight);
    }
    layer.weight = std::move(weight);
    return layer;
  }

  // Puts the layer in the place of the site's nodes. The constants that it made useless go with them.
  void put(const Site& site, int64_t id) {
    Node* last = site.last();
    Graph* graph = last->owningGraph();
    torch::jit::WithInsertPoint at(last);
    Value* layer = graph->insertConstant(id);
    Node* n = nullptr;
    if (site.kind == Site::kLinear) {
      Value* residual = site.residual >= 0 ? last->input(site.residual) : graph->insertConstant(c10::IValue());
      n = graph->insertNode(graph->create(symbol("torchvit::linear"), {site.node->input(0), layer, residual}));
    } else {
      const auto name = symbol(site.kind == Site::kPatchEmbed ? "torchvit::patch_embed" : "torchvit::conv3x3");
      Value* height = graph->insertConstant(site.size[0]);
      Value* width = graph->insertConstant(site.size[1]);
      n = graph->insertNode(graph->create(name, {site.node->input(0), layer, height, width}));
    }
    n->output()->setType(c10::TensorType::get());
    last->output()->replaceAllUsesWith(n->output());
    std::vector<Node*> old(site.tail.rbegin(), site.tail.rend());
    old.push_back(site.node);
    for (Node* o : old) {
      std::vector<Value*> inputs(o->inputs().begin(), o->inputs().end());
      o->destroy();
      std::sort(inputs.begin(), inputs.end());
      inputs.erase(std::unique(inputs.begin(), inputs.end()), inputs.end());
      for (Value* v : inputs)
        if (v->node()->kind() == c10::prim::Constant && v->uses().empty()) v->node()->destroy();
    }
  }

  // aten::_native_multi_head_attention of one sequence with itself -> linear, self_attention, linear.
  void expand_native_attention(Node* n, Rewritten::Count* count) {
    if (!is(n, "aten::_native_multi_head_attention")) return;
    const auto heads = torch::jit::toIValue(n->input(4));
    const auto mask = torch::jit::toIValue(n->input(9)), need_weights = torch::jit::toIValue(n->input(10));
    if (n->input(0) != n->input(1) || n->input(0) != n->input(2) || !heads || !heads->isInt() || !mask ||
        !mask->isNone() || !need_weights || !need_weights->isBool() || need_weights->toBool())
      return;
    for (const size_t k : {5, 6, 7, 8})
      if (!tensor_of(n->input(k))) return;
    if (!n->output(1)->uses().empty()) {
      // An undefined tensor, as the operator's own.
      Node* none = n->owningGraph()->createAutogradZero();
      none->insertBefore(n);
      n->output(1)->replaceAllUsesWith(none->output());
    }
    Graph* graph = n->owningGraph();
    torch::jit::WithInsertPoint at(n);
    auto call = [&](const char* name, at::ArrayRef<Value*> inputs) {
      Value* out = graph->insertNode(graph->create(symbol(name), inputs))->output();
      out->setType(c10::TensorType::get());
      return out;
    };
    Value* qkv = call("aten::linear", {n->input(0), n->input(5), n->input(6)});
    Value* mixed = call("torchvit::self_attention", {qkv, n->input(4)});
    n->output(0)->replaceAllUsesWith(call("aten::linear", {mixed, n->input(7), n->input(8)}));
    n->destroy();
    count->attention++;
  }

  static void share_roi_align(Node* n, Rewritten::Count* count) {
    if (!is(n, "torchvision::roi_align") || n->inputs().size() != 7) return;
    torch::jit::WithInsertPoint at(n);
    Graph* graph = n->owningGraph();
    Node* shared = graph->insertNode(graph->create(symbol("torchvit::roi_align"), n->inputs()));
    shared->output()->setType(c10::TensorType::get());
    replace(n, shared->output());
    count->roi_align++;
  }

  static std::optional<double> number(const Value* v) {
    const auto i = torch::jit::toIValue(v);
    if (!i) return std::nullopt;
    if (i->isDouble()) return i->toDouble();
    if (i->isInt()) return static_cast<double>(i->toInt());
    if (i->isTensor() && i->toTensor().defined() && i->toTensor().numel() == 1 && i->toTensor().device().is_cpu())
      return i->toTensor().item<double>();
    return std::nullopt;
  }

  // softmax((q @ k) * scale, -1) @ v, where nobody else wants the weights.
  static void fuse_attention(Node* n, Rewritten::Count* count) {
    if (!is(n, "aten::matmul")) return;
    Node* softmax = n->input(0)->node();
    if (!is(softmax, "aten::softmax") || only_user(softmax->output()) != n) return;
    const auto dim = torch::jit::toIValue(softmax->input(1)), dtype = torch::jit::toIValue(softmax->input(2));
    const c10::IValue single(static_cast<int64_t>(at::kFloat));
    if (!dim || !dim->isInt() || dim->toInt() != -1 || !dtype || !(dtype->isNone() || dtype == single)) return;
    double scale = 1;
    Node* scores = softmax->input(0)->node();
    std::vector<Node*> old{softmax};
    if (is(scores, "aten::mul") || is(scores, "aten::div")) {
      const auto factor = scores->inputs().size() == 2 ? number(scores->input(1)) : std::nullopt;
      if (!factor || *factor == 0 || only_user(scores->output()) != softmax) return;
      scale = is(scores, "aten::mul") ? *factor : 1 / *factor;
      old.push_back(scores);
      scores = scores->input(0)->node();
    }
    Site site;
    site.node = scores;
    if (!is(scores, "aten::matmul") || only_user(scores->output()) != old.back() || !can_move(site, n)) return;
    old.push_back(scores);
    Graph* graph = n->owningGraph();
    torch::jit::WithInsertPoint at(n);
    Value* factor = graph->insertConstant(scale);
    Node* fused = graph->insertNode(graph->create(
        symbol("torchvit::attention"),
        {scores->input(0), scores->input(1), n->input(1), factor, graph->insertConstant(dtype == single)}));
    fused->output()->setType(c10::TensorType::get());
    replace(n, fused->output());
    for (Node* o : old) o->destroy();
    count->attention++;
  }

  bool bfloat16_;
  std::shared_ptr<Layers> layers_;
  std::map<Key, std::vector<Site>> sites_;
  std::unordered_set<const Node*> taken_;
  std::unordered_map<const void*, bool> final_;
};

}  // namespace

Rewritten rewrite(torch::jit::Module module, bool bfloat16) {
  Rewritten out{std::move(module), std::make_shared<Layers>(), {}, {}};
  out.module.eval();
  std::vector<std::string> names;
  for (const auto& method : out.module.get_methods()) names.push_back(method.name());
  try {
    // The clone shares the tensors, and leaves a module behind that still works where freezing fails.
    out.module = torch::jit::freeze_module(out.module, names);
  } catch (const std::exception& e) {
    out.note = std::string("left as it is, it cannot be frozen: ") + e.what();
    return out;
  }
  Rewriter rewriter(bfloat16, out.layers);
  auto methods = out.module.get_methods();
  std::stable_partition(methods.begin(), methods.end(), [](const auto& m) { return m.name() == "forward"; });
  for (auto& method : methods) {
    auto* function = torch::jit::tryToGraphFunction(method.function());
    if (function == nullptr) continue;
    auto graph = function->graph();
    specialise(graph);
    torch::jit::FoldFrozenConvBatchnorm(graph);
    torch::jit::FoldFrozenConvAddOrSub(graph);
    torch::jit::FoldFrozenConvMulOrDiv(graph);
    torch::jit::FoldFrozenLinearBatchnorm(graph);
    Rewritten::Count count;
    count.method = method.name();
    rewriter.scan(graph, &count);
    out.counts.push_back(std::move(count));
  }
  rewriter.pack_all();
  for (auto& method : out.module.get_methods())
    if (auto* function = torch::jit::tryToGraphFunction(method.function())) {
      auto graph = function->graph();
      torch::jit::EliminateDeadCode(graph);
    }
  if (bfloat16 && !has_bfloat16_instructions())
    out.note = "bfloat16 without instructions for it in this processor: slower than float32";
  return out;
}

}  // namespace tv
