// Autograd: backward, gradients, what a tensor carries of them, and the generator's state.
#include "lane.h"
#include "value.h"

#include <memory>
#include <mutex>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

extern "C" {

tv_status* tv_backward(const tv_node* nodes, int32_t nodes_len, int32_t retain_graph, int32_t create_graph,
                       tv_mode mode) {
  return tv::run(mode, [&] {
    tv::Reader reader(nodes, nodes_len, nullptr, 0);
    const auto roots = reader.read_tensors(), gradients = reader.read_tensors();
    torch::autograd::backward(roots, gradients, retain_graph != 0, create_graph != 0);
  });
}

tv_status* tv_gradients(const tv_node* nodes, int32_t nodes_len, int32_t retain_graph, int32_t create_graph,
                        int32_t allow_unused, tv_mode mode, tv_values** out) {
  return tv::run(mode, [&] {
    tv::Reader reader(nodes, nodes_len, nullptr, 0);
    const auto outputs = reader.read_tensors(), inputs = reader.read_tensors(), gradients = reader.read_tensors();
    const auto found =
        torch::autograd::grad(outputs, inputs, gradients, retain_graph != 0, create_graph != 0, allow_unused != 0);
    auto v = std::make_unique<tv_values>();
    tv::add_node(v.get(), TV_LIST, static_cast<int64_t>(found.size()))->i = TV_TENSOR;
    for (const auto& t : found) tv::write(t, v.get());
    *out = v.release();
  });
}

tv_status* tv_tensor_grad(const tv_tensor* t, tv_tensor** out) {
  return tv::light([&] {
    // grad() of a tensor inside the graph would print a warning and give none.
    const bool has = t->t.defined() && (t->t.is_leaf() || t->t.retains_grad()) && t->t.grad().defined();
    *out = has ? new tv_tensor(t->t.grad()) : nullptr;
  });
}

tv_status* tv_tensor_set_requires_grad(tv_tensor* t, int32_t on) {
  return tv::light([&] {
    if (!t->t.defined()) throw tv::Error(TV_VALUE, "requires_grad: got an undefined tensor");
    t->t.requires_grad_(on != 0);
  });
}

tv_status* tv_rng_state(tv_tensor** out) {
  return tv::light([&] {
    auto generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(generator.mutex());
    *out = new tv_tensor(generator.get_state());
  });
}

tv_status* tv_set_rng_state(const tv_tensor* state) {
  return tv::light([&] {
    if (!state->t.defined()) throw tv::Error(TV_VALUE, "set_rng_state: got an undefined tensor");
    auto generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(state->t);
  });
}

}  // extern "C"
