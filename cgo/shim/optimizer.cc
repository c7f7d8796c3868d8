// Optimizers in the order of operations of Python's torch.optim, one call for all parameters. libtorch's own
// C++ optimizers compute in another order, and other last bits.
#include "lane.h"
#include "value.h"

#include <array>
#include <cmath>
#include <memory>
#include <unordered_set>
#include <vector>

#include <ATen/native/ForeachUtils.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_clamp_max.h>
#include <ATen/ops/_foreach_clamp_min.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

namespace tv {
namespace {

// What an optimizer keeps for a parameter: a slot for each name, empty before the first step.
constexpr size_t kSlots = 4;
enum { kMomentumBuffer = 0 };
enum { kStep = 0, kExpAvg, kExpAvgSq, kMaxExpAvgSq };
using State = std::array<at::Tensor, kSlots>;

bool is_adam(int32_t kind) { return kind != TV_SGD; }

}  // namespace
}  // namespace tv

struct tv_optimizer : tv::Counted<tv::kOptimizer> {
  int32_t kind;
  std::vector<at::Tensor> parameters;
  std::vector<tv::State> state;
};

namespace tv {
namespace {

// Products that a compiler may not join with the sum they go into: Python rounds both.
double product(double a, double b) {
  const volatile double p = a * b;
  return p;
}

// _single_tensor_sgd
void sgd(const at::Tensor& p, at::Tensor grad, State& s, const tv_group& g) {
  if (g.weight_decay != 0) grad = grad.add(p, g.weight_decay);
  if (g.momentum != 0) {
    auto& buffer = s[kMomentumBuffer];
    if (buffer.defined())
      buffer.mul_(g.momentum).add_(grad, 1 - g.dampening);
    else
      buffer = grad.detach().clone();
    grad = g.nesterov != 0 ? grad.add(buffer, g.momentum) : buffer;
  }
  p.add_(grad, -g.lr);
}

// The lazy initialisation in Adam._init_group.
void init_adam(const at::Tensor& p, State& s, const tv_group& g) {
  if (!s[kStep].defined()) {
    const auto options = at::TensorOptions(at::kFloat).device(g.fused != 0 ? p.device() : at::Device(at::kCPU));
    auto step = at::scalar_tensor(0.0, options), exp_avg = at::zeros_like(p), exp_avg_sq = at::zeros_like(p);
    s[kStep] = std::move(step);
    s[kExpAvg] = std::move(exp_avg);
    s[kExpAvgSq] = std::move(exp_avg_sq);
  }
  if (g.fused != 0 && s[kStep].device() != p.device()) s[kStep] = s[kStep].to(p.device());  // loaded state
  if (g.amsgrad != 0 && !s[kMaxExpAvgSq].defined()) s[kMaxExpAvgSq] = at::zeros_like(p);
}

// _single_tensor_adam
void adam(int32_t kind, const at::Tensor& p, at::Tensor grad, State& s, const tv_group& g) {
  s[kStep].add_(1);
  if (g.weight_decay != 0) {
    if (kind == TV_ADAMW)
      p.mul_(1 - product(g.lr, g.weight_decay));
    else
      grad = grad.add(p, g.weight_decay);
  }
  s[kExpAvg].lerp_(grad, 1 - g.beta1);
  s[kExpAvgSq].mul_(g.beta2).addcmul_(grad, grad, 1 - g.beta2);

  const double step = s[kStep].item<double>();
  const double bias_correction1 = 1 - std::pow(g.beta1, step), bias_correction2 = 1 - std::pow(g.beta2, step);
  const double step_size = g.lr / bias_correction1;
  const double bias_correction2_sqrt = std::pow(bias_correction2, 0.5);  // Python's ** 0.5
  if (g.amsgrad != 0) at::maximum_out(s[kMaxExpAvgSq], s[kMaxExpAvgSq], s[kExpAvgSq]);
  const auto& second = g.amsgrad != 0 ? s[kMaxExpAvgSq] : s[kExpAvgSq];
  const auto denominator = (second.sqrt() / bias_correction2_sqrt).add_(g.eps);
  p.addcdiv_(s[kExpAvg], denominator, -step_size);
}

// _fused_adam: one kernel for all tensors of a device and dtype.
void fused_adam(int32_t kind, std::vector<std::vector<std::optional<at::Tensor>>>&& lists, const tv_group& g) {
  for (auto& entry : at::native::_group_tensors_by_first_tensors_device_and_dtype(lists, false)) {
    std::vector<std::vector<at::Tensor>> t;
    for (auto& list : entry.second.first) {
      auto& to = t.emplace_back();
      for (auto& one : list)
        if (one) to.push_back(std::move(*one));
    }
    at::_foreach_add_(t[5], 1);
    const auto run = kind == TV_ADAMW
                         ? static_cast<decltype(&at::_ops::_fused_adam_::call)>(&at::_ops::_fused_adamw_::call)
                         : &at::_ops::_fused_adam_::call;
    run(t[0], t[1], t[2], t[3], t[4], t[5], g.lr, g.beta1, g.beta2, g.weight_decay, g.eps, g.amsgrad != 0, false, {},
        {});
  }
}

// The gradients of a list of tensors, leaving out those that have none.
std::vector<at::Tensor> gradients_of(const tv_node* nodes, int32_t nodes_len) {
  std::vector<at::Tensor> out;
  Reader reader(nodes, nodes_len, nullptr, 0);
  for (const auto& t : reader.read_tensors()) {
    if (!t.defined()) throw Error(TV_VALUE, "gradients: got an undefined tensor");
    if ((t.is_leaf() || t.retains_grad()) && t.grad().defined()) out.push_back(t.grad());
  }
  return out;
}

// Runs f on the tensors of each device and dtype, grouped as Python groups them.
template <typename F>
void each_kind(const std::vector<at::Tensor>& tensors, F&& f) {
  std::vector<std::vector<std::optional<at::Tensor>>> lists{{tensors.begin(), tensors.end()}};
  for (auto& entry : at::native::_group_tensors_by_first_tensors_device_and_dtype(lists, false)) {
    std::vector<at::Tensor> same;
    for (auto& t : entry.second.first[0]) same.push_back(std::move(*t));
    f(same);
  }
}

}  // namespace
}  // namespace tv

extern "C" {

tv_status* tv_optimizer_new(int32_t kind, const tv_node* nodes, int32_t nodes_len, tv_optimizer** out) {
  return tv::light([&] {
    if (kind < TV_SGD || kind > TV_ADAMW)
      throw tv::Error(TV_INVALID_ARGUMENT, "optimizer: got kind " + std::to_string(kind) + ", want 0, 1 or 2");
    tv::Reader reader(nodes, nodes_len, nullptr, 0);
    auto o = std::make_unique<tv_optimizer>();
    o->kind = kind;
    o->parameters = reader.read_tensors();
    o->state.resize(o->parameters.size());
    std::unordered_set<const void*> seen;
    for (size_t k = 0; k < o->parameters.size(); k++) {
      const auto& p = o->parameters[k];
      const auto which = "parameter " + std::to_string(k) + ": ";
      if (!p.defined()) throw tv::Error(TV_VALUE, which + "got an undefined tensor");
      if (p.is_inference())
        throw tv::Error(TV_AUTOGRAD, which + "got a tensor made in inference mode, want an ordinary one");
      if (!p.is_leaf() && !p.retains_grad()) throw tv::Error(TV_AUTOGRAD, which + "can't optimize a non-leaf Tensor");
      if (!p.is_floating_point())
        throw tv::Error(TV_DTYPE, which + "got " + c10::toString(p.scalar_type()) + ", want a floating dtype");
      if (!seen.insert(p.unsafeGetTensorImpl()).second)
        throw tv::Error(TV_INVALID_ARGUMENT, which + "some parameters appear in more than one parameter group");
    }
    *out = o.release();
  });
}

void tv_optimizer_free(tv_optimizer* o) {
  tv::quiet([&] { delete o; });
}

tv_status* tv_optimizer_step(tv_optimizer* o, const tv_group* groups, int32_t n, tv_mode mode) {
  return tv::run(mode, [&] {
    size_t k = 0;
    for (int32_t i = 0; i < n; i++) {
      const tv_group& g = groups[i];
      if (g.count < 0 || k + static_cast<size_t>(g.count) > o->parameters.size())
        throw tv::Error(TV_INVALID_ARGUMENT, "step: got groups of more parameters than the optimizer has");
      std::vector<std::vector<std::optional<at::Tensor>>> fused(6);
      for (const size_t end = k + static_cast<size_t>(g.count); k < end; k++) {
        const auto& p = o->parameters[k];
        const auto& grad = p.grad();
        if (!grad.defined()) continue;
        auto& s = o->state[k];
        if (o->kind == TV_SGD) {
          tv::sgd(p, grad, s, g);
          continue;
        }
        tv::init_adam(p, s, g);
        if (g.fused == 0) {
          tv::adam(o->kind, p, grad, s, g);
          continue;
        }
        const at::Tensor* all[] = {&p, &grad, &s[tv::kExpAvg], &s[tv::kExpAvgSq], &s[tv::kMaxExpAvgSq], &s[tv::kStep]};
        for (size_t list = 0; list < 6; list++)
          if (all[list]->defined() && (list != 4 || g.amsgrad != 0)) fused[list].emplace_back(*all[list]);
      }
      if (!fused[0].empty()) tv::fused_adam(o->kind, std::move(fused), g);
    }
  });
}

tv_status* tv_optimizer_zero_grad(tv_optimizer* o) {
  return tv::light([&] {
    for (const auto& p : o->parameters) p.mutable_grad().reset();
  });
}

tv_status* tv_optimizer_state(tv_optimizer* o, tv_values** out) {
  return tv::light([&] {
    auto v = std::make_unique<tv_values>();
    tv::add_node(v.get(), TV_LIST, static_cast<int64_t>(o->state.size() * tv::kSlots))->i = TV_TENSOR;
    for (const auto& slots : o->state)
      for (const auto& t : slots) tv::write(t, v.get());
    *out = v.release();
  });
}

tv_status* tv_optimizer_set_state(tv_optimizer* o, const tv_node* nodes, int32_t nodes_len, tv_mode mode) {
  return tv::run(mode, [&] {
    tv::Reader reader(nodes, nodes_len, nullptr, 0);
    const auto given = reader.read_tensors();
    if (given.size() != o->state.size() * tv::kSlots)
      throw tv::Error(TV_INVALID_ARGUMENT, "state: got " + std::to_string(given.size()) + " tensors, want " +
                                               std::to_string(o->state.size() * tv::kSlots));
    std::vector<tv::State> state(o->state.size());
    for (size_t k = 0; k < given.size(); k++) {
      if (!given[k].defined()) continue;
      const auto& p = o->parameters[k / tv::kSlots];
      const bool step = tv::is_adam(o->kind) && k % tv::kSlots == tv::kStep;
      const auto want = step ? at::IntArrayRef() : p.sizes();
      if (given[k].sizes() != want)
        throw tv::Error(TV_SHAPE, "state of parameter " + std::to_string(k / tv::kSlots) + ": got a tensor of " +
                                      c10::str(given[k].sizes()) + ", want " + c10::str(want));
      // In the parameter's layout, as zeros_like makes it: the kernels read them side by side.
      auto made = step ? at::scalar_tensor(0.0, at::TensorOptions(at::kFloat)) : at::zeros_like(p);
      made.copy_(given[k]);
      state[k / tv::kSlots][k % tv::kSlots] = std::move(made);
    }
    o->state = std::move(state);
  });
}

tv_status* tv_clip_grad_norm(const tv_node* nodes, int32_t nodes_len, double max_norm, tv_mode mode, double* out) {
  return tv::run(mode, [&] {
    const auto grads = tv::gradients_of(nodes, nodes_len);
    if (grads.empty()) {
      *out = 0;
      return;
    }
    std::vector<at::Tensor> norms;
    tv::each_kind(grads, [&](const auto& same) {
      for (auto& norm : at::_foreach_norm(same, 2.0)) norms.push_back(norm.to(grads[0].device()));
    });
    const auto total = at::linalg_vector_norm(at::stack(norms), 2.0);
    // max_norm / (total_norm + 1e-6): a number over a tensor is reciprocal times number in Python.
    const auto coefficient = at::clamp((total + 1e-6).reciprocal() * max_norm, std::nullopt, 1.0);
    tv::each_kind(grads, [&](const auto& same) { at::_foreach_mul_(same, coefficient.to(same[0].device())); });
    *out = total.template item<double>();
  });
}

tv_status* tv_clip_grad_value(const tv_node* nodes, int32_t nodes_len, double value, tv_mode mode) {
  return tv::run(mode, [&] {
    const auto grads = tv::gradients_of(nodes, nodes_len);
    if (grads.empty()) return;
    tv::each_kind(grads, [&](const auto& same) {
      at::_foreach_clamp_min_(same, -value);
      at::_foreach_clamp_max_(same, value);
    });
  });
}

}  // extern "C"
