// 3x3 convolutions in float32, with gemm.h's products.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace tv {

// The vectors of winograd hold so many channels: in and out must be multiples of it. With fewer than the minimum, its
// transforms cost more than the products that it saves.
constexpr int64_t kWinogradChannels = 8, kWinogradMinimum = 64;

// A weight (out_channels, in_channels, 3, 3) as winograd takes it.
at::Tensor pack_winograd(const at::Tensor& weight);

// A convolution with a kernel of 3x3, stride 1, dilation 1 and one group.
struct Winograd {
  const float* x;  // (batch, height, width, in_channels), contiguous
  int64_t batch, height, width, in_channels;
  int64_t padding_height, padding_width;  // with zeros
  const float* weight;                    // as pack_winograd gives it
  const float* bias = nullptr;            // (out_channels)
  bool relu = false;
  float* y;  // (batch, out_height(), out_width(), out_channels), contiguous
  int64_t out_channels;

  int64_t out_height() const { return height + 2 * padding_height - 2; }
  int64_t out_width() const { return width + 2 * padding_width - 2; }
};

// Where has_gemm. An output with an infinity among its inputs may be NaN.
void winograd(const Winograd& convolution);

}  // namespace tv
