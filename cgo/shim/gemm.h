// Products of matrices in float32 for processors with AVX2 and without AVX-512.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace tv {

// Whether gemm is for this processor. oneDNN's kernels are quicker where there is AVX-512; ATEN_CPU_CAPABILITY=avx2
// says to do as if there was none.
bool has_gemm();

// A weight (out_features, in_features) as gemm takes it: panels of 24 rows, transposed, the last filled up with zeros.
at::Tensor pack_panels(const at::Tensor& weight);

enum class Activation { kNone, kReLU, kGELU };

// How many numbers pack_panels makes of such a weight.
int64_t packed_size(int64_t out_features, int64_t in_features);

// What happens to a product before it is written.
struct Epilogue {
  const float* bias = nullptr;      // (out_features)
  const float* residual = nullptr;  // (rows, out_features); not with an activation
  Activation activation = Activation::kNone;
};

// y (rows, out_features) = x (rows, in_features) @ weight^T, and the epilogue; all contiguous.
void gemm(const float* x, int64_t rows, int64_t in_features, const float* panels, int64_t out_features,
          const Epilogue& epilogue, float* y);

// The same without other threads.
void gemm_on_this_thread(const float* x, int64_t rows, int64_t in_features, const float* panels, int64_t out_features,
                         const Epilogue& epilogue, float* y);

}  // namespace tv
