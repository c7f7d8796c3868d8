// TorchScript modules.
#include "lane.h"
#include "precision.h"
#include "value.h"

#include <algorithm>
#include <chrono>
#include <istream>
#include <memory>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/serialization/export.h>
#include <torch/csrc/jit/serialization/import.h>

struct tv_module : tv::Counted<tv::kModule> {
  explicit tv_module(torch::jit::Module m) : m(std::move(m)) {
    for (auto& method : this->m.get_methods()) methods.push_back(method);
  }
  explicit tv_module(const tv_module& other, torch::jit::Module m) : tv_module(std::move(m)) { layers = other.layers; }
  torch::jit::Module m;
  std::vector<torch::jit::Method> methods;
  std::shared_ptr<tv::Layers> layers;  // of a rewritten module
};

namespace tv {
namespace {

// An input stream over memory, which is not copied.
struct MemoryBuffer : std::streambuf {
  MemoryBuffer(const void* data, int64_t n) {
    char* p = static_cast<char*>(const_cast<void*>(data));
    setg(p, p, p + n);
  }
  pos_type seekoff(off_type off, std::ios_base::seekdir dir, std::ios_base::openmode) override {
    char* base = dir == std::ios_base::beg ? eback() : dir == std::ios_base::cur ? gptr() : egptr();
    if (off < eback() - base || off > egptr() - base) return pos_type(off_type(-1));
    setg(eback(), base + off, egptr());
    return gptr() - eback();
  }
  pos_type seekpos(pos_type pos, std::ios_base::openmode which) override {
    return seekoff(off_type(pos), std::ios_base::beg, which);
  }
};

// Where the values of an inlined graph come from: the module's own state or somewhere else.
class Origins {
 public:
  explicit Origins(const torch::jit::Graph& graph) : self_(graph.inputs().empty() ? nullptr : graph.inputs()[0]) {}

  // Whether running the block can change the module: it sets an attribute, or writes in place into a
  // value that an attribute may hold.
  bool changes_state(const torch::jit::Block* block) {
    for (const auto* node : block->nodes()) {
      const auto kind = node->kind();
      if (kind == c10::prim::SetAttr && from_state(node->inputs()[0])) return true;
      // A call that was not inlined, through an interface, can do anything.
      if (kind == c10::prim::CallMethod || kind == c10::prim::CallFunction) return true;
      if (const auto* schema = node->maybeSchema(); schema != nullptr && schema->is_mutable()) {
        for (size_t k = 0; k < schema->arguments().size() && k < node->inputs().size(); k++) {
          const auto* alias = schema->arguments()[k].alias_info();
          if (alias != nullptr && alias->isWrite() && from_state(node->inputs()[k])) return true;
        }
      }
      for (const auto* inner : node->blocks())
        if (changes_state(inner)) return true;
    }
    return false;
  }

 private:
  // Whether the value may be the module, an attribute, or a view of one.
  bool from_state(const torch::jit::Value* v) {
    std::unordered_set<const torch::jit::Value*> seen;
    return from_state(v, &seen);
  }

  bool any(at::ArrayRef<const torch::jit::Value*> values, std::unordered_set<const torch::jit::Value*>* seen) {
    return std::any_of(values.begin(), values.end(), [&](const auto* v) { return from_state(v, seen); });
  }

  bool from_state(const torch::jit::Value* v, std::unordered_set<const torch::jit::Value*>* seen) {
    if (v == self_) return true;
    if (!seen->insert(v).second) return false;
    const auto* node = v->node();
    const auto kind = node->kind();
    if (kind == c10::prim::Param) {
      const auto* owner = node->owningBlock()->owningNode();
      if (owner == nullptr) return false;  // an argument of the caller
      if (owner->kind() != c10::prim::Loop) return true;
      // A loop's body takes a counter and what the loop carries.
      return v->offset() > 0 &&
             any({owner->inputs()[v->offset() + 1], owner->blocks()[0]->outputs()[v->offset()]}, seen);
    }
    if (kind == c10::prim::Loop)
      return any({node->inputs()[v->offset() + 2], node->blocks()[0]->outputs()[v->offset() + 1]}, seen);
    if (kind == c10::prim::If)
      return any({node->blocks()[0]->outputs()[v->offset()], node->blocks()[1]->outputs()[v->offset()]}, seen);
    if (kind == c10::prim::CreateObject) return false;
    if (kind == c10::prim::GetAttr && node->inputs()[0]->node()->kind() == c10::prim::CreateObject) {
      // An attribute of an object that the code made: what it put there.
      const auto& name = node->s(c10::attr::name);
      const auto& uses = node->inputs()[0]->uses();
      return std::any_of(uses.begin(), uses.end(), [&](const auto& use) {
        return use.user->kind() == c10::prim::SetAttr && use.offset == 0 && use.user->s(c10::attr::name) == name &&
               from_state(use.user->inputs()[1], seen);
      });
    }
    // A constant tensor belongs to the code, which all calls share.
    if (kind == c10::prim::Constant) return v->type()->kind() == c10::TypeKind::TensorType;
    if (const auto* schema = node->maybeSchema();
        schema != nullptr && v->offset() < schema->returns().size() && !schema->is_varret() &&
        kind != c10::prim::GetAttr && schema->returns()[v->offset()].alias_info() == nullptr && kind.is_aten())
      return false;  // new memory
    const auto inputs = node->inputs();
    return std::any_of(inputs.begin(), inputs.end(), [&](const auto* in) { return from_state(in, seen); });
  }

  const torch::jit::Value* self_;
};

bool is_stateful(torch::jit::Method& method) {
  auto* g = torch::jit::tryToGraphFunction(method.function());
  if (g == nullptr) return true;
  // Made for the first call anyway, with the calls into submodules inlined.
  const auto graph = g->optimized_graph();
  return Origins(*graph).changes_state(graph->block());
}

std::unordered_map<std::string, std::string> read_extra(const tv_node* nodes, int32_t n, const char* text,
                                                        int64_t text_len) {
  std::unordered_map<std::string, std::string> extra;
  if (n == 0) return extra;
  Reader reader(nodes + 1, n - 1, text, text_len);
  for (int32_t k = 0; k < nodes[0].count; k++) {
    auto name = reader.read_string();
    extra[name] = nodes[0].kind == TV_DICT ? reader.read_string() : "";
  }
  return extra;
}

std::vector<c10::IValue> arguments(const c10::FunctionSchema& schema, const tv_node* nodes, int32_t nodes_len,
                                   int32_t nargs, const char* text, int64_t text_len) {
  const auto& formal = schema.arguments();  // the first one is self
  Reader reader(nodes, nodes_len, text, text_len);
  if (static_cast<size_t>(nargs) + 1 > formal.size())
    throw Error(TV_INVALID_ARGUMENT, schema.name() + ": got " + std::to_string(nargs) + " arguments, want at most " +
                                         std::to_string(formal.size() - 1) + " (" + c10::str(schema) + ")");
  std::vector<c10::IValue> stack;
  stack.reserve(formal.size());
  for (int32_t k = 0; k < nargs; k++) {
    const auto& arg = formal[static_cast<size_t>(k) + 1];
    c10::IValue v;
    int cost = 0;
    std::string why;
    if (!reader.read(arg.type(), &v, &cost, &why))
      throw Error(TV_INVALID_ARGUMENT, schema.name() + ": argument " + arg.name() + ": " + why);
    stack.push_back(std::move(v));
  }
  for (size_t k = static_cast<size_t>(nargs) + 1; k < formal.size(); k++)
    if (!formal[k].default_value())
      throw Error(TV_INVALID_ARGUMENT, schema.name() + ": got " + std::to_string(nargs) + " arguments, want one for " +
                                           formal[k].name() + " (" + c10::str(schema) + ")");
  return stack;
}

torch::jit::Method& method_at(tv_module* m, int32_t index) {
  if (index < 0 || static_cast<size_t>(index) >= m->methods.size())
    throw Error(TV_INVALID_ARGUMENT,
                "method: got index " + std::to_string(index) + ", want less than " + std::to_string(m->methods.size()));
  return m->methods[static_cast<size_t>(index)];
}

// A module that was trained keeps the plan that records a graph, and gives results of inference mode with
// one, which would hold what the call computed on the way.
void without_graph(tv_node* n) {
  if (n->kind != TV_TENSOR) return;
  at::Tensor& t = n->tensor->t;
  if (t.is_inference() && t.requires_grad()) t = t.detach();
}

std::optional<at::Device> optional_device(int32_t type, int32_t index) {
  if (type < 0) return std::nullopt;
  return device(type, index);
}

}  // namespace
}  // namespace tv

extern "C" {

tv_status* tv_module_load(const char* path, int64_t path_len, const void* data, int64_t data_len, int32_t device_type,
                          int32_t device_index, const tv_node* extra, int32_t extra_len, const char* text,
                          int64_t text_len, tv_values** found, tv_module** out) {
  return tv::light([&] {
    // Not under inference mode: parameters that were made there could never be trained.
    auto files = tv::read_extra(extra, extra_len, text, text_len);
    const auto device = tv::optional_device(device_type, device_index);
    torch::jit::Module m;
    if (path != nullptr) {
      m = torch::jit::load(tv::text(path, path_len), device, files);
    } else {
      tv::MemoryBuffer buffer(data, data_len);
      std::istream in(&buffer);
      m = torch::jit::load(in, device, files);
    }
    auto values = std::make_unique<tv_values>();
    tv::add_node(values.get(), TV_DICT, static_cast<int64_t>(files.size()));
    for (const auto& [name, content] : files) {
      tv::add_string(values.get(), name);
      tv::add_bytes(values.get(), content);
    }
    *out = new tv_module(std::move(m));
    *found = values.release();
  });
}

void tv_module_free(tv_module* m) {
  tv::quiet([&] { delete m; });
}

tv_status* tv_module_describe(tv_module* m, tv_values** out) {
  return tv::light([&] {
    auto v = std::make_unique<tv_values>();
    tv::add_node(v.get(), TV_TUPLE, 3);
    tv::add_node(v.get(), TV_LIST, static_cast<int64_t>(m->methods.size()));
    for (auto& method : m->methods) {
      tv::add_node(v.get(), TV_TUPLE, 3);
      tv::add_string(v.get(), method.name());
      tv::add_string(v.get(), c10::str(method.function().getSchema()));
      tv::add_node(v.get(), TV_BOOL)->i = tv::is_stateful(method);
    }
    const auto& type = m->m.type();
    tv::add_node(v.get(), TV_LIST, static_cast<int64_t>(type->numAttributes()));
    for (size_t k = 0; k < type->numAttributes(); k++) {
      tv::add_node(v.get(), TV_TUPLE, 2);
      tv::add_string(v.get(), type->getAttributeName(k));
      tv::add_string(v.get(), type->getAttribute(k)->str());
    }
    tv::add_node(v.get(), TV_BOOL)->i = m->m.is_training();
    *out = v.release();
  });
}

tv_status* tv_module_call(tv_module* m, int32_t method, const tv_node* nodes, int32_t nodes_len, int32_t nargs,
                          const char* text, int64_t text_len, tv_mode mode, tv_node* out, tv_values** more) {
  return tv::run(mode, [&] {
    auto& f = tv::method_at(m, method);
    tv::write_result(f(tv::arguments(f.function().getSchema(), nodes, nodes_len, nargs, text, text_len)), out, more);
    if (*more == nullptr) {
      tv::without_graph(out);
      return;
    }
    for (auto& node : (*more)->nodes) tv::without_graph(&node);
  });
}

tv_status* tv_module_tensors(tv_module* m, int32_t which, tv_values** out) {
  return tv::light([&] {
    auto v = std::make_unique<tv_values>();
    std::vector<std::pair<std::string, at::Tensor>> all;
    if (which == 0) {
      for (const auto& p : m->m.named_parameters()) all.emplace_back(p.name, p.value);
    } else {
      for (const auto& b : m->m.named_buffers()) all.emplace_back(b.name, b.value);
    }
    std::unordered_set<const void*> seen;
    all.erase(
        std::remove_if(all.begin(), all.end(),
                       [&](const auto& named) { return !seen.insert(named.second.unsafeGetTensorImpl()).second; }),
        all.end());
    tv::add_node(v.get(), TV_LIST, static_cast<int64_t>(all.size()))->i = -1;
    for (auto& [name, t] : all) {
      tv::add_node(v.get(), TV_TUPLE, 2);
      tv::add_string(v.get(), name);
      v->nodes.push_back(tv::tensor_node(std::move(t)));
    }
    *out = v.release();
  });
}

tv_status* tv_module_get_attribute(tv_module* m, const char* name, int64_t name_len, tv_values** out) {
  return tv::light([&] {
    const auto n = tv::text(name, name_len);
    if (!m->m.hasattr(n)) throw tv::Error(TV_NOT_FOUND, "attribute: got \"" + n + "\", which the module does not have");
    auto v = std::make_unique<tv_values>();
    tv::write(m->m.attr(n), v.get());
    *out = v.release();
  });
}

tv_status* tv_module_set_attribute(tv_module* m, const char* name, int64_t name_len, const tv_node* nodes,
                                   int32_t nodes_len, const char* text, int64_t text_len) {
  return tv::light([&] {
    const auto n = tv::text(name, name_len);
    const auto& type = m->m.type();
    if (!type->hasAttribute(n))
      throw tv::Error(TV_NOT_FOUND, "attribute: got \"" + n + "\", which the module does not have");
    tv::Reader reader(nodes, nodes_len, text, text_len);
    c10::IValue v;
    int cost = 0;
    std::string why;
    if (!reader.read(type->getAttribute(n), &v, &cost, &why))
      throw tv::Error(TV_INVALID_ARGUMENT, "attribute " + n + ": " + why);
    m->m.setattr(n, std::move(v));
  });
}

tv_status* tv_module_train(tv_module* m, int32_t on) {
  return tv::light([&] { m->m.train(on != 0); });
}

tv_status* tv_module_to(tv_module* m, int32_t dtype, int32_t device_type, int32_t device_index, tv_mode mode) {
  return tv::run(mode, [&] {
    const auto device = tv::optional_device(device_type, device_index);
    const auto type = static_cast<at::ScalarType>(dtype - 1);
    if (dtype != 0 && device)
      m->m.to(*device, type);
    else if (dtype != 0)
      m->m.to(type);
    else if (device)
      m->m.to(*device);
  });
}

tv_status* tv_module_channels_last(tv_module* m, tv_mode mode) {
  return tv::run(mode, [&] {
    auto convert = [](at::Tensor t) {
      // Strides of 1x1 kernels too, unlike contiguous.
      if (t.dim() == 4) t.set_data(t.to(t.options(), false, false, at::MemoryFormat::ChannelsLast));
    };
    for (const auto& p : m->m.parameters()) convert(p);
    for (const auto& b : m->m.buffers()) convert(b);
  });
}

tv_status* tv_module_rewrite(tv_module* m, int32_t bfloat16, tv_mode mode, tv_values** out) {
  return tv::run(mode, [&] {
    // The module is handed over, so that its weights go while they are packed.
    m->methods.clear();
    auto done = tv::rewrite(std::exchange(m->m, torch::jit::Module()), bfloat16 != 0);
    m->m = std::move(done.module);
    m->layers = std::move(done.layers);
    for (auto& method : m->m.get_methods()) m->methods.push_back(method);
    auto v = std::make_unique<tv_values>();
    tv::add_node(v.get(), TV_TUPLE, 2);
    tv::add_node(v.get(), TV_LIST, static_cast<int64_t>(done.counts.size()));
    for (const auto& count : done.counts) {
      tv::add_node(v.get(), TV_TUPLE, 8);
      tv::add_string(v.get(), count.method);
      for (const int64_t n :
           {count.linear, count.fused, count.attention, count.patch_embed, count.conv, count.roi_align, count.left})
        tv::add_node(v.get(), TV_INT)->i = n;
    }
    tv::add_string(v.get(), done.note);
    *out = v.release();
  });
}

tv_status* tv_module_clone(tv_module* m, tv_module** out) {
  return tv::light([&] { *out = new tv_module(*m, m->m.deepcopy()); });
}

tv_status* tv_module_save(tv_module* m, const tv_node* extra, int32_t extra_len, const char* text, int64_t text_len,
                          tv_buffer** out) {
  return tv::light([&] {
    const auto files = tv::read_extra(extra, extra_len, text, text_len);
    std::string bytes;
    const std::function<size_t(const void*, size_t)> write = [&](const void* p, size_t n) {
      bytes.append(static_cast<const char*>(p), n);
      return n;
    };
    torch::jit::ExportModule(m->m, write, files);
    *out = new tv_buffer(std::move(bytes));
  });
}

tv_status* tv_bench_module_call(tv_module* m, int32_t method, const tv_tensor* input, tv_mode mode, int64_t n,
                                double* seconds) {
  return tv::run(mode, [&] {
    auto& f = tv::method_at(m, method);
    const auto start = std::chrono::steady_clock::now();
    for (int64_t k = 0; k < n; k++) f({input->t});
    *seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });
}

}  // extern "C"
