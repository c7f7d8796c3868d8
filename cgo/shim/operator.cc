// Operators by name: the overload is chosen from the schemas, as torch.ops does.
#include "lane.h"
#include "torchvision.h"
#include "value.h"

#include <bitset>
#include <chrono>
#include <memory>
#include <mutex>
#include <unordered_map>

#include <dlfcn.h>

#include <torch/csrc/jit/runtime/operator.h>

namespace tv {
namespace {

// Which kinds of node may fit a type, as bits: turns an overload down without reading the values.
uint32_t kinds_of(const c10::TypePtr& type) {
  constexpr uint32_t kAll = ~uint32_t{0};
  switch (type->kind()) {
    case c10::TypeKind::OptionalType:
      return 1u << TV_NONE | kinds_of(type->expectRef<c10::OptionalType>().getElementType());
    case c10::TypeKind::NoneType:
      return 1u << TV_NONE;
    case c10::TypeKind::TensorType:
      return 1u << TV_TENSOR;
    case c10::TypeKind::BoolType:
      return 1u << TV_BOOL;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return 1u << TV_INT;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
      return 1u << TV_INT | 1u << TV_FLOAT;
    case c10::TypeKind::NumberType:
      return 1u << TV_BOOL | 1u << TV_INT | 1u << TV_FLOAT;
    case c10::TypeKind::StringType:
    case c10::TypeKind::DeviceObjType:
      return 1u << TV_STRING;
    case c10::TypeKind::ListType:
    case c10::TypeKind::TupleType:
      return 1u << TV_LIST | 1u << TV_TUPLE;
    case c10::TypeKind::DictType:
      return 1u << TV_DICT;
    case c10::TypeKind::UnionType:
    case c10::TypeKind::AnyType:
      return kAll;
    default:
      return 0;
  }
}

// What the choice of an overload asks of an argument, read from the schema once.
struct Formal {
  explicit Formal(const c10::Argument& arg)
      : arg(&arg),
        kinds(kinds_of(arg.type())),
        kwarg_only(arg.kwarg_only()),
        optional(arg.default_value().has_value()) {
    // int[2] takes one int for both.
    auto type = arg.type();
    if (type->kind() == c10::TypeKind::OptionalType) type = type->expectRef<c10::OptionalType>().getElementType();
    if (arg.N().has_value() && type->kind() == c10::TypeKind::ListType) {
      spread = type->expectRef<c10::ListType>().getElementType();
      kinds |= kinds_of(spread);
    }
  }
  const c10::Argument* arg;
  uint32_t kinds;
  bool kwarg_only, optional;
  c10::TypePtr spread;
};

constexpr size_t kMaxArguments = 128;

struct Overload {
  explicit Overload(std::shared_ptr<torch::jit::Operator> o) : op(std::move(o)), run(op->getOperation()) {
    for (const auto& arg : op->schema().arguments()) {
      formal.emplace_back(arg);
      if (!formal.back().kwarg_only) positional++;
    }
  }
  std::shared_ptr<torch::jit::Operator> op;
  mutable torch::jit::Operation run;  // calling it changes nothing in it
  std::vector<Formal> formal;
  size_t positional = 0;
};

std::string overload_name(const c10::FunctionSchema& s) {
  return s.overload_name().empty() ? s.name() : s.name() + "." + s.overload_name();
}

// The arguments of one call: nargs positional values, then nkwargs pairs of name and value.
struct Given {
  const tv_node* nodes;
  int32_t nodes_len, nargs, nkwargs;
  const char* text;
  int64_t text_len;
};

// Fills the stack for that overload. False where the arguments do not fit, with the reason in *why
// unless it is NULL and in *cost how many arguments were looked at. Else *cost ranks the overload: first
// the steps away from its types, then how many defaults it takes.
bool fill(const Overload& o, const Given& in, std::vector<c10::IValue>* stack, int* cost, std::string* why) {
  const size_t n = o.formal.size();
  const auto nargs = static_cast<size_t>(in.nargs);
  if (nargs > o.positional) {
    if (why != nullptr)
      *why = "got " + std::to_string(nargs) + " positional arguments, want at most " + std::to_string(o.positional);
    return false;
  }
  Reader reader(in.nodes, in.nodes_len, in.text, in.text_len);
  int steps = 0, defaults = 0;
  std::bitset<kMaxArguments> given;
  stack->clear();
  stack->resize(n);
  auto one = [&](size_t k) {
    const Formal& f = o.formal[k];
    given[k] = true;
    ++*cost;
    if ((f.kinds >> reader.peek_kind() & 1) == 0) {
      if (why != nullptr) *why = "argument " + f.arg->name() + ": " + reader.misfit(f.arg->type());
      return false;
    }
    if (f.spread) {
      Reader trial = reader;
      c10::IValue single;
      int c = 0;
      if (trial.read(f.spread, &single, &c, nullptr)) {
        c10::impl::GenericList list(f.spread);
        for (int32_t i = 0; i < *f.arg->N(); i++) list.push_back(single);
        (*stack)[k] = std::move(list);
        steps += c + 1;
        reader = trial;
        return true;
      }
    }
    std::string reason;
    if (reader.read(f.arg->type(), &(*stack)[k], &steps, why == nullptr ? nullptr : &reason)) return true;
    if (why != nullptr) *why = "argument " + f.arg->name() + ": " + reason;
    return false;
  };
  for (size_t k = 0; k < nargs; k++)
    if (!one(k)) return false;
  for (int32_t k = 0; k < in.nkwargs; k++) {
    const std::string name = reader.read_string();
    const auto index = o.op->schema().argumentIndexWithName(name);
    if (!index || given[static_cast<size_t>(*index)]) {
      if (why != nullptr) *why = index ? "argument " + name + ": got it twice" : "got an unknown argument " + name;
      return false;
    }
    if (!one(static_cast<size_t>(*index))) return false;
  }
  if (!reader.done()) throw Error(TV_INVALID_ARGUMENT, "operator: got more nodes than the arguments use");
  for (size_t k = 0; k < n; k++) {
    if (given[k]) continue;
    if (!o.formal[k].optional) {
      if (why != nullptr)
        *why = "argument " + o.formal[k].arg->name() + ": got nothing, want " + o.formal[k].arg->type()->str();
      return false;
    }
    (*stack)[k] = *o.formal[k].arg->default_value();
    defaults++;
  }
  *cost = steps * static_cast<int>(kMaxArguments) + defaults;
  return true;
}

}  // namespace
}  // namespace tv

struct tv_operator {
  std::string name;
  std::vector<tv::Overload> overloads;
};

namespace tv {
namespace {

[[noreturn]] void no_overload(const tv_operator* op, const Given& in) {
  std::string why, closest, reasons;
  std::vector<c10::IValue> stack;
  int most = -1;
  for (const auto& o : op->overloads) {
    int looked_at = 0;
    fill(o, in, &stack, &looked_at, &why);
    reasons += "\n  " + c10::str(o.op->schema()) + ": " + why;
    if (looked_at > most) {
      most = looked_at;
      closest = overload_name(o.op->schema()) + ": " + why;
    }
  }
  throw Error(TV_INVALID_ARGUMENT, "no overload takes these arguments; " + closest + reasons);
}

// The overload that fits, with its stack filled.
const Overload& choose(const tv_operator* op, const Given& in, std::vector<c10::IValue>* stack) {
  const Overload* best = nullptr;
  std::string equals;  // names of the overloads that fit as well as the best
  std::vector<c10::IValue> trial;
  int best_cost = 0;
  for (const auto& o : op->overloads) {
    int cost = 0;
    if (!fill(o, in, &trial, &cost, nullptr)) continue;
    if (best != nullptr && cost == best_cost) {
      equals += ", " + overload_name(o.op->schema());
    } else if (best == nullptr || cost < best_cost) {
      best = &o;
      best_cost = cost;
      stack->swap(trial);
      equals.clear();
    }
  }
  if (best == nullptr) no_overload(op, in);
  if (!equals.empty())
    throw Error(TV_INVALID_ARGUMENT,
                "these arguments fit several overloads, name one of " + overload_name(best->op->schema()) + equals);
  return *best;
}

}  // namespace
}  // namespace tv

extern "C" {

tv_status* tv_library_load(const char* path, int64_t path_len) {
  return tv::guard([&] {
    const std::string p = tv::text(path, path_len);
    void* handle = dlopen(p.c_str(), RTLD_NOW | RTLD_GLOBAL);
    std::string first = handle == nullptr ? dlerror() : "";
    // On the CPU plan the CUDA functions of a library are missing, and never called.
    if (handle == nullptr) handle = dlopen(p.c_str(), RTLD_LAZY | RTLD_GLOBAL);
    if (handle == nullptr) throw tv::Error(TV_IO, "load library: " + first);
    tv::complete_torchvision();
  });
}

tv_status* tv_operator_find(const char* name, int64_t name_len, tv_operator** out) {
  return tv::guard([&] {
    static std::mutex mutex;
    static auto* known = new std::unordered_map<std::string, tv_operator*>();
    const std::string full = tv::text(name, name_len);
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = known->find(full);
    if (found != known->end()) {
      *out = found->second;
      return;
    }
    const size_t colons = full.find("::");
    if (colons == std::string::npos || colons == 0 || colons + 2 == full.size())
      throw tv::Error(TV_INVALID_ARGUMENT,
                      "operator: got \"" + full + "\", want namespace::name, such as aten::softmax");
    const size_t dot = full.find('.', colons);
    const std::string base = full.substr(0, dot);
    auto op = std::make_unique<tv_operator>();
    op->name = full;
    for (const auto& o : torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(base))) {
      // Operators made for one node of a graph, and those of any arguments, cannot be called.
      if (!o->hasOperation() || o->schema().is_vararg() || o->schema().arguments().size() > tv::kMaxArguments) continue;
      if (dot == std::string::npos || tv::overload_name(o->schema()) == full) op->overloads.emplace_back(o);
    }
    if (op->overloads.empty())
      throw tv::Error(TV_NOT_FOUND, "operator: got \"" + full + "\", which no loaded library registers");
    *out = (*known)[full] = op.release();
  });
}

tv_status* tv_operator_schemas(const tv_operator* op, tv_buffer** out) {
  return tv::guard([&] {
    std::string s;
    for (const auto& o : op->overloads) s += c10::str(o.op->schema()) + "\n";
    *out = new tv_buffer(std::move(s));
  });
}

tv_status* tv_operator_call(const tv_operator* op, const tv_node* nodes, int32_t nodes_len, int32_t nargs,
                            int32_t nkwargs, const char* text, int64_t text_len, tv_mode mode, tv_node* out,
                            tv_values** more) {
  return tv::run(mode, [&] {
    std::vector<c10::IValue> stack;
    tv::choose(op, tv::Given{nodes, nodes_len, nargs, nkwargs, text, text_len}, &stack).run(stack);
    c10::IValue result;
    if (stack.size() == 1)
      result = std::move(stack[0]);
    else if (!stack.empty())
      result = c10::ivalue::Tuple::create(std::move(stack));
    tv::write_result(result, out, more);
  });
}

tv_status* tv_bench_operator_call(const tv_operator* op, const tv_node* nodes, int32_t nodes_len, int32_t nargs,
                                  const char* text, int64_t text_len, tv_mode mode, int64_t n, double* seconds) {
  return tv::run(mode, [&] {
    std::vector<c10::IValue> arguments;
    const auto& o = tv::choose(op, tv::Given{nodes, nodes_len, nargs, 0, text, text_len}, &arguments);
    const auto start = std::chrono::steady_clock::now();
    for (int64_t k = 0; k < n; k++) {
      auto stack = arguments;
      o.run(stack);
    }
    *seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });
}

}  // extern "C"
