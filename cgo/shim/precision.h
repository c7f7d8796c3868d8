// Modules rewritten to faster kernels, with other last bits than Python's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <torch/csrc/jit/api/module.h>

namespace tv {

class Layers;

// What a rewritten module needs beside itself, and what was done.
struct Rewritten {
  torch::jit::Module module;
  std::shared_ptr<Layers> layers;
  // For each method: how many linear layers, attentions, patch embeddings, convolutions and RoIAligns were replaced,
  // and how many linear layers were left.
  struct Count {
    std::string method;
    int64_t linear = 0, fused = 0, attention = 0, patch_embed = 0, conv = 0, roi_align = 0, left = 0;
  };
  std::vector<Count> counts;
  // Why nothing was done, or what is slower than it looks; empty where there is nothing to say.
  std::string note;
};

// Freezes the module, which is used up, and replaces what it can. A graph that is not understood stays as it is.
Rewritten rewrite(torch::jit::Module module, bool bfloat16);

}  // namespace tv
