// Gradients and autocast of torchvision's operators, as its _autograd_registrations.py registers them.
#include "torchvision.h"

#include <list>
#include <mutex>
#include <vector>

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace tv {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using torch::jit::Stack;

// Arguments of a backward operator that are no argument of the forward one.
enum : int { kGradient = -1, kOutput = -2, kSizes = -3 };

struct Rule {
  const char* name;
  // What the backward operator takes: arguments of the forward one by number, and those of the enum. kOutput
  // is the forward's second result, kSizes the four sizes of its first argument.
  std::vector<int> takes;
  // The kernel's name in the warning about algorithms that are not deterministic.
  const char* kernel;
};

const std::vector<Rule>& rules() {
  static const auto* all = new std::vector<Rule>{
      {"roi_align", {kGradient, 1, 2, 3, 4, kSizes, 5, 6}, "roi_align_backward_kernel"},
      {"roi_pool", {kGradient, 1, kOutput, 2, 3, 4, kSizes}, "roi_pool_backward_kernel"},
      {"ps_roi_align", {kGradient, 1, kOutput, 2, 3, 4, 5, kSizes}, "ps_roi_align_backward_kernel"},
      {"ps_roi_pool", {kGradient, 1, kOutput, 2, 3, 4, kSizes}, "ps_roi_pool_backward_kernel"},
      {"deform_conv2d", {kGradient, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, "compute_grad_input"},
  };
  return *all;
}

const Rule* rule_of(const c10::OperatorHandle& op) {
  const std::string& name = op.operator_name().name;
  for (const Rule& r : rules())
    if (name == std::string("torchvision::") + r.name) return &r;
  return nullptr;
}

class Recorded : public torch::autograd::Function<Recorded> {
 public:
  // tensors are those of args, which become the results.
  static variable_list forward(AutogradContext* ctx, at::TensorList tensors, const c10::OperatorHandle& op,
                               const Rule* rule, Stack* args) {
    const Stack given = *args;
    at::AutoDispatchBelowADInplaceOrView below;
    op.callBoxed(*args);
    variable_list results;
    for (const c10::IValue& v : *args) results.push_back(v.toTensor());
    if (results.size() > 1) ctx->mark_non_differentiable({results[1]});
    variable_list saved;
    auto plain = c10::impl::GenericList(c10::AnyType::get());
    for (int i : rule->takes) {
      if (i == kOutput) {
        saved.push_back(results[1]);
      } else if (i >= 0 && given[i].isTensor()) {
        saved.push_back(given[i].toTensor());
      } else if (i >= 0) {
        plain.push_back(given[i]);
      }
    }
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["plain"] = std::move(plain);
    ctx->saved_data["sizes"] = given[0].toTensor().sizes();
    ctx->saved_data["rule"] = static_cast<int64_t>(rule - rules().data());
    ctx->saved_data["inputs"] = static_cast<int64_t>(tensors.size());
    return results;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Rule& rule = rules()[static_cast<size_t>(ctx->saved_data["rule"].toInt())];
    if (gradients[0].is_cuda()) at::globalContext().alertNotDeterministic(rule.kernel);
    const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(
        (std::string("torchvision::_") + rule.name + "_backward").c_str(), "");
    const variable_list saved = ctx->get_saved_variables();
    const auto plain = ctx->saved_data["plain"].toList();
    Stack stack;
    size_t tensor = 0, other = 0;
    for (int i : rule.takes) {
      if (i == kGradient) {
        stack.emplace_back(gradients[0]);
      } else if (i == kSizes) {
        for (int64_t size : ctx->saved_data["sizes"].toIntVector()) stack.emplace_back(size);
      } else if (tensor < saved.size() &&
                 op.schema().arguments()[stack.size()].type()->kind() == c10::TypeKind::TensorType) {
        stack.emplace_back(saved[tensor++]);
      } else {
        stack.emplace_back(plain.get(other++));
      }
    }
    op.callBoxed(stack);
    // One for each tensor of the forward operator, and none for the other three arguments of forward.
    variable_list out(static_cast<size_t>(ctx->saved_data["inputs"].toInt()) + 3);
    for (size_t i = 0; i < stack.size(); i++) out[i] = stack[i].toTensor();
    return out;
  }
};

void record(const c10::OperatorHandle& op, Stack* stack) {
  Stack args = torch::jit::pop(*stack, op.schema().arguments().size());
  variable_list tensors;
  for (const c10::IValue& v : args)
    if (v.isTensor()) tensors.push_back(v.toTensor());
  for (auto& t : Recorded::apply(at::TensorList(tensors), op, rule_of(op), &args)) stack->emplace_back(std::move(t));
}

// Runs the operator in float32 and casts what it gives back to the first argument's dtype.
void cast(const c10::OperatorHandle& op, Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(
      c10::DispatchKeySet({c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA}));
  const size_t n = op.schema().arguments().size(), first = stack->size() - n;
  const auto dtype = (*stack)[first].toTensor().scalar_type();
  for (size_t i = first; i < stack->size(); i++) {
    c10::IValue& v = (*stack)[i];
    if (v.isTensor() && v.toTensor().is_floating_point() && v.toTensor().scalar_type() != at::kDouble)
      v = v.toTensor().to(at::kFloat);
  }
  op.callBoxed(*stack);
  if (op.operator_name().name == "torchvision::nms") return;
  for (size_t i = first; i < stack->size(); i++) (*stack)[i] = (*stack)[i].toTensor().to(dtype);
}

void implement(c10::DispatchKey key, const char* name, torch::CppFunction f) {
  const auto op = c10::Dispatcher::singleton().findSchema({std::string("torchvision::") + name, ""});
  if (!op.has_value() || op->hasKernelForDispatchKey(key)) return;
  // Never destroyed: that would take the kernels away.
  static auto* libraries = new std::list<torch::Library>();
  libraries->emplace_back(torch::Library::IMPL, "torchvision", key, __FILE__, __LINE__).impl(name, std::move(f));
}

}  // namespace

void complete_torchvision() {
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  if (!c10::Dispatcher::singleton().findSchema({"torchvision::roi_align", ""}).has_value()) return;
  static bool done = false;
  if (done) return;
  done = true;
  for (const Rule& r : rules())
    implement(c10::DispatchKey::Autograd, r.name, torch::CppFunction::makeFromBoxedFunction<&record>());
  // Second derivatives are an error there too.
  for (const Rule& r : rules())
    implement(c10::DispatchKey::Autograd, (std::string("_") + r.name + "_backward").c_str(),
              torch::autograd::autogradNotImplementedFallback());
  // As there: on the CPU, autocast casts for these two alone.
  for (const char* name : {"nms", "roi_align"})
    implement(c10::DispatchKey::AutocastCPU, name, torch::CppFunction::makeFromBoxedFunction<&cast>());
  implement(c10::DispatchKey::AutocastCUDA, "nms", torch::CppFunction::makeFromBoxedFunction<&cast>());
  for (const Rule& r : rules())
    implement(c10::DispatchKey::AutocastCUDA, r.name, torch::CppFunction::makeFromBoxedFunction<&cast>());
}

}  // namespace tv
