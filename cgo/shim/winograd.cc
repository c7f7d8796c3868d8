// F(2x2, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015): a tile of 4x4 inputs gives
// 2x2 outputs with 16 products in place of 36. Its transforms only add and halve, so that its sums, which are shorter,
// are more exact than a convolution's; those of F(4x4, 3x3) multiply, and lose a digit.
#include "winograd.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include <ATen/ops/empty.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "gemm.h"
#include "parallel.h"

#if defined(__x86_64__)
#define TV_AVX2 __attribute__((target("avx2,fma")))
#define TV_AVX2_INLINE __attribute__((target("avx2,fma"), always_inline)) inline
#else
#define TV_AVX2
#define TV_AVX2_INLINE inline
#endif

namespace tv {

namespace {

constexpr int kIn = 4, kOut = 2;      // the sides of a tile
constexpr int kProducts = kIn * kIn;  // of a tile and channel
constexpr int64_t kTiles = 32;        // at a time: their numbers stay in the caches of a core
constexpr int64_t kFewTiles = kTiles / 2;
constexpr int64_t kApart = 16;  // numbers between matrices whose sizes are powers of two: they would share sets

using Vector = float __attribute__((vector_size(4 * kWinogradChannels)));

TV_AVX2_INLINE Vector load(const float* from) {
  Vector v;
  memcpy(&v, from, sizeof v);
  return v;
}

TV_AVX2_INLINE void store(float* to, Vector v) { memcpy(to, &v, sizeof v); }

// B^T d
TV_AVX2_INLINE void transform_input(const Vector (&d)[kIn], Vector (&out)[kIn]) {
  out[0] = d[0] - d[2];
  out[1] = d[1] + d[2];
  out[2] = d[2] - d[1];
  out[3] = d[1] - d[3];
}

// A^T m
TV_AVX2_INLINE void transform_output(const Vector (&m)[kIn], Vector (&out)[kOut]) {
  out[0] = m[0] + m[1] + m[2];
  out[1] = m[1] - m[2] - m[3];
}

struct Layout {
  int64_t rows, columns;  // of tiles in an image
  int64_t in, out;        // numbers from one matrix of a block's inputs and outputs to the next
  const float* zeros;     // (in_channels)
};

struct Tile {
  int64_t image, y, x;  // its first output

  Tile(const Layout& layout, int64_t i)
      : image(i / (layout.rows * layout.columns)),
        y(i / layout.columns % layout.rows * kOut),
        x(i % layout.columns * kOut) {}
};

// B^T d B of a tile, to the row of each of the matrices.
TV_AVX2 void read(const Winograd& p, const Layout& layout, const Tile& tile, float* row) {
  const float* pixels[kIn][kIn];
  for (int i = 0; i < kIn; i++)
    for (int j = 0; j < kIn; j++) {
      const int64_t y = tile.y + i - p.padding_height, x = tile.x + j - p.padding_width;
      const bool inside = y >= 0 && y < p.height && x >= 0 && x < p.width;
      pixels[i][j] = inside ? p.x + ((tile.image * p.height + y) * p.width + x) * p.in_channels : layout.zeros;
    }
  for (int64_t c = 0; c < p.in_channels; c += kWinogradChannels) {
    Vector half[kIn][kIn];
#pragma GCC unroll 4
    for (int j = 0; j < kIn; j++) {
      Vector d[kIn], out[kIn];
#pragma GCC unroll 4
      for (int i = 0; i < kIn; i++) d[i] = load(pixels[i][j] + c);
      transform_input(d, out);
#pragma GCC unroll 4
      for (int i = 0; i < kIn; i++) half[i][j] = out[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < kIn; i++) {
      Vector out[kIn];
      transform_input(half[i], out);
#pragma GCC unroll 4
      for (int j = 0; j < kIn; j++) store(row + (i * kIn + j) * layout.in + c, out[j]);
    }
  }
}

// A^T m A of the rows of the matrices, and what belongs to the image of it.
TV_AVX2 void write(const Winograd& p, const Layout& layout, const Tile& tile, const float* row) {
  const int64_t height = p.out_height(), width = p.out_width();
  const bool below = tile.y + 1 < height, right = tile.x + 1 < width;
  float* y = p.y + ((tile.image * height + tile.y) * width + tile.x) * p.out_channels;
  for (int64_t k = 0; k < p.out_channels; k += kWinogradChannels) {
    Vector half[kOut][kIn];
#pragma GCC unroll 4
    for (int j = 0; j < kIn; j++) {
      Vector m[kIn], out[kOut];
#pragma GCC unroll 4
      for (int i = 0; i < kIn; i++) m[i] = load(row + (i * kIn + j) * layout.out + k);
      transform_output(m, out);
#pragma GCC unroll 2
      for (int i = 0; i < kOut; i++) half[i][j] = out[i];
    }
    const Vector bias = p.bias == nullptr ? Vector{} : load(p.bias + k);
#pragma GCC unroll 2
    for (int i = 0; i < kOut; i++) {
      Vector out[kOut];
      transform_output(half[i], out);
#pragma GCC unroll 2
      for (int j = 0; j < kOut; j++) {
        Vector v = out[j] + bias;
        if (p.relu) v = v < 0 ? Vector{} : v;  // NaN stays
        if ((i == 0 || below) && (j == 0 || right)) store(y + (i * width + j) * p.out_channels + k, v);
      }
    }
  }
}

}  // namespace

at::Tensor pack_winograd(const at::Tensor& weight) {
  const auto g = at::tensor({1.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0.0, 0.0, 1.0}, at::kDouble).view({kIn, 3});
  const int64_t out = weight.size(0), in = weight.size(1);
  const auto exact = weight.to(at::kDouble).reshape({out, in, 9});
  auto packed = at::empty({kProducts, packed_size(out, in)}, at::kFloat);
  for (int a = 0; a < kIn; a++)
    for (int b = 0; b < kIn; b++) {
      const auto matrix = exact.matmul(at::outer(g[a], g[b]).flatten()).to(at::kFloat);  // G w G^T at (a, b)
      packed[a * kIn + b].copy_(pack_panels(matrix).flatten());
    }
  return packed;
}

void winograd(const Winograd& p) {
  Layout layout{};
  layout.rows = (p.out_height() + kOut - 1) / kOut;
  layout.columns = (p.out_width() + kOut - 1) / kOut;
  const int64_t tiles = p.batch * layout.rows * layout.columns;
  const int64_t size = tiles < 8 * at::get_num_threads() * kTiles ? kFewTiles : kTiles;
  const int64_t blocks = (tiles + size - 1) / size, threads = std::min<int64_t>(at::get_num_threads(), blocks);
  layout.in = size * p.in_channels + kApart;
  layout.out = size * p.out_channels + kApart;
  const auto zeros = at::zeros({p.in_channels}, at::kFloat);
  layout.zeros = zeros.const_data_ptr<float>();
  const auto memory = at::empty({threads, kProducts * (layout.in + layout.out)}, at::kFloat);
  float* first = memory.mutable_data_ptr<float>();
  const int64_t matrix = packed_size(p.out_channels, p.in_channels);
  std::atomic<int64_t> next{0}, thread{0};
  on_threads(threads, [&] {
    float* in = first + thread.fetch_add(1) * kProducts * (layout.in + layout.out);
    float* out = in + kProducts * layout.in;
    for (int64_t i = next.fetch_add(1); i < blocks; i = next.fetch_add(1)) {
      const int64_t from = i * size, count = std::min(size, tiles - from);
      for (int64_t t = 0; t < count; t++) read(p, layout, Tile(layout, from + t), in + t * p.in_channels);
      for (int64_t m = 0; m < kProducts; m++)
        gemm_on_this_thread(in + m * layout.in, count, p.in_channels, p.weight + m * matrix, p.out_channels, {},
                            out + m * layout.out);
      for (int64_t t = 0; t < count; t++) write(p, layout, Tile(layout, from + t), out + t * p.out_channels);
    }
  });
}

}  // namespace tv
