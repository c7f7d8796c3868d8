// Operators by name: the overload is chosen from the schemas, as torch.ops does.
#include "lane.h"
#include "value.h"

#include <chrono>
#include <mutex>
#include <unordered_map>

#include <dlfcn.h>

#include <torch/csrc/jit/runtime/operator.h>

struct tv_operator {
  std::string name;
  std::vector<std::shared_ptr<torch::jit::Operator>> overloads;
};

namespace tv {
namespace {

// Fills the stack for that schema from the nodes. False where they do not fit.
bool fill(const c10::FunctionSchema& schema, const tv_node* nodes, int32_t nodes_len, int32_t nargs, int32_t nkwargs,
          const char* text, int64_t text_len, std::vector<c10::IValue>* stack, int* cost, std::string* why) {
  const auto& formal = schema.arguments();
  Reader reader(nodes, nodes_len, text, text_len);
  std::vector<bool> given(formal.size());
  stack->assign(formal.size(), c10::IValue());
  auto one = [&](size_t k) {
    const auto& arg = formal[k];
    given[k] = true;
    auto type = arg.type();
    // int[2] takes one int for both.
    const bool broadcast = arg.N().has_value() && type->kind() == c10::TypeKind::ListType;
    if (broadcast) {
      Reader trial = reader;
      c10::IValue single;
      int c = 0;
      std::string w;
      if (trial.read(type->expectRef<c10::ListType>().getElementType(), &single, &c, &w)) {
        c10::impl::GenericList list(type->expectRef<c10::ListType>().getElementType());
        for (int32_t i = 0; i < *arg.N(); i++) list.push_back(single);
        (*stack)[k] = std::move(list);
        *cost += c + 1;
        reader = trial;
        return true;
      }
    }
    std::string reason;
    if (reader.read(type, &(*stack)[k], cost, &reason)) return true;
    *why = "argument " + arg.name() + ": " + reason;
    return false;
  };
  for (int32_t k = 0; k < nargs; k++) {
    if (static_cast<size_t>(k) >= formal.size() || formal[static_cast<size_t>(k)].kwarg_only()) {
      *why = "got " + std::to_string(nargs) + " positional arguments, want at most " + std::to_string(k);
      return false;
    }
    if (!one(static_cast<size_t>(k))) return false;
  }
  for (int32_t k = 0; k < nkwargs; k++) {
    const std::string name = reader.read_string();
    const auto index = schema.argumentIndexWithName(name);
    if (!index || given[static_cast<size_t>(*index)]) {
      *why = index ? "argument " + name + ": got it twice" : "got an unknown argument " + name;
      return false;
    }
    if (!one(static_cast<size_t>(*index))) return false;
  }
  for (size_t k = 0; k < formal.size(); k++) {
    if (given[k]) continue;
    if (!formal[k].default_value()) {
      *why = "argument " + formal[k].name() + ": got nothing, want " + formal[k].type()->str();
      return false;
    }
    (*stack)[k] = *formal[k].default_value();
  }
  return true;
}

std::string overload_name(const c10::FunctionSchema& s) {
  return s.overload_name().empty() ? s.name() : s.name() + "." + s.overload_name();
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
    if (colons == std::string::npos)
      throw tv::Error(TV_INVALID_ARGUMENT, "operator: got \"" + full + "\", want namespace::name, such as aten::softmax");
    const size_t dot = full.find('.', colons);
    const std::string base = full.substr(0, dot);
    auto overloads = torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(base));
    if (dot != std::string::npos)
      overloads.erase(std::remove_if(overloads.begin(), overloads.end(),
                                     [&](const auto& o) { return tv::overload_name(o->schema()) != full; }),
                      overloads.end());
    if (overloads.empty()) throw tv::Error(TV_NOT_FOUND, "operator: got \"" + full + "\", which no loaded library registers");
    *out = (*known)[full] = new tv_operator{full, std::move(overloads)};
  });
}

tv_status* tv_operator_schemas(const tv_operator* op, tv_buffer** out) {
  return tv::guard([&] {
    std::string s;
    for (const auto& o : op->overloads) s += c10::str(o->schema()) + "\n";
    *out = new tv_buffer(std::move(s));
  });
}

tv_status* tv_operator_call(const tv_operator* op, const tv_node* nodes, int32_t nodes_len, int32_t nargs,
                            int32_t nkwargs, const char* text, int64_t text_len, tv_mode mode, tv_node* out,
                            tv_values** more) {
  return tv::run(mode, [&] {
    std::vector<c10::IValue> stack, best_stack;
    std::vector<const torch::jit::Operator*> best;
    int best_cost = 0;
    std::string why, reasons;
    for (const auto& o : op->overloads) {
      int cost = 0;
      if (!tv::fill(o->schema(), nodes, nodes_len, nargs, nkwargs, text, text_len, &stack, &cost, &why)) {
        reasons += "\n  " + c10::str(o->schema()) + ": " + why;
        continue;
      }
      if (best.empty() || cost < best_cost) {
        best.assign(1, o.get());
        best_cost = cost;
        best_stack.swap(stack);
      } else if (cost == best_cost) {
        best.push_back(o.get());
      }
    }
    if (best.empty())
      throw tv::Error(TV_INVALID_ARGUMENT, op->name + ": no overload takes these arguments (" + why + ")" + reasons);
    if (best.size() > 1) {
      std::string names;
      for (const auto* o : best) names += (names.empty() ? "" : ", ") + tv::overload_name(o->schema());
      throw tv::Error(TV_INVALID_ARGUMENT, op->name + ": these arguments fit several overloads, name one of " + names);
    }
    best[0]->getOperation()(best_stack);
    c10::IValue result;
    if (best_stack.size() == 1)
      result = std::move(best_stack[0]);
    else if (!best_stack.empty())
      result = c10::ivalue::Tuple::create(std::move(best_stack));
    tv::write_result(result, out, more);
  });
}

tv_status* tv_bench_operator_call(const tv_operator* op, const tv_tensor* input, tv_mode mode, int64_t n,
                                  double* seconds) {
  return tv::run(mode, [&] {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t k = 0; k < n; k++) {
      std::vector<c10::IValue> stack{input->t};
      op->overloads.at(0)->getOperation()(stack);
    }
    *seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });
}

}  // extern "C"
