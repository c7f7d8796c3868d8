// A product with a packed weight: panels of 24 output features, tiles of 4 rows. A tile's 12 sums, the 3 vectors of a
// panel's row and a number of x are AVX2's 16 registers. The panels go to whichever thread is free, as cores are
// seldom equally quick.
#include "gemm.h"

#include <algorithm>

#include <ATen/Version.h>
#include <ATen/ops/empty.h>

#include "parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tv {

#if defined(__x86_64__)

#define TV_AVX2 __attribute__((target("avx2,fma")))
#define TV_AVX2_INLINE __attribute__((target("avx2,fma"), always_inline)) inline

namespace {

constexpr int kVectors = 3, kRows = 4;  // of a tile
constexpr int64_t kWidth = 8 * kVectors;
constexpr int64_t kDepth = 768;  // input features at a time: a panel's slice stays in the caches of a core
constexpr int64_t kBlock = 256;  // rows at a time at most

}  // namespace

bool has_gemm() {
  static const bool yes =
      at::get_cpu_capability() == "AVX2" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return yes;
}

at::Tensor pack_panels(const at::Tensor& weight) {
  const int64_t n = weight.size(0), k = weight.size(1), panels = (n + kWidth - 1) / kWidth;
  auto out = at::empty({panels, k, kWidth}, weight.options());
  const float* w = weight.const_data_ptr<float>();
  float* p = out.mutable_data_ptr<float>();
  constexpr int64_t kColumns = 16;  // a line of the cache
  each_index(panels, [&](int64_t panel) {
    const float* from = w + panel * kWidth * k;
    float* to = p + panel * kWidth * k;
    const int64_t rows = std::min(kWidth, n - panel * kWidth);
    for (int64_t at = 0; at < k; at += kColumns) {
      const int64_t end = std::min(k, at + kColumns);
      for (int64_t row = 0; row < kWidth; row++)
        for (int64_t i = at; i < end; i++) to[i * kWidth + row] = row < rows ? from[row * k + i] : 0;
    }
  });
  return out;
}

namespace {

struct Product {
  const float* x;
  int64_t in_features;
  const float* panels;
  int64_t out_features;
  Epilogue epilogue;
  float* y;
};

// erf to 4.5e-7: a quotient of polynomials, with the coefficients of Eigen's generic_fast_erf_float.
TV_AVX2_INLINE __m256 erf(__m256 x) {
  x = _mm256_max_ps(_mm256_set1_ps(-4), _mm256_min_ps(_mm256_set1_ps(4), x));
  const __m256 x2 = _mm256_mul_ps(x, x);
  __m256 p = _mm256_set1_ps(-2.72614225801306e-10f);
  p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(2.77068142495902e-08f));
  p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(-2.10102402082508e-06f));
  p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(-5.69250639462346e-05f));
  p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(-7.34990630326855e-04f));
  p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(-2.95459980854025e-03f));
  p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(-1.60960333262415e-02f));
  __m256 q = _mm256_set1_ps(-1.45660718464996e-05f);
  q = _mm256_fmadd_ps(q, x2, _mm256_set1_ps(-2.13374055278905e-04f));
  q = _mm256_fmadd_ps(q, x2, _mm256_set1_ps(-1.68282697438203e-03f));
  q = _mm256_fmadd_ps(q, x2, _mm256_set1_ps(-7.37332916720468e-03f));
  q = _mm256_fmadd_ps(q, x2, _mm256_set1_ps(-1.42647390514189e-02f));
  return _mm256_div_ps(_mm256_mul_ps(x, p), q);
}

// The first columns of a vector.
TV_AVX2_INLINE __m256i columns(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

TV_AVX2_INLINE __m256 load(const float* from, int64_t width) {
  return width >= 8 ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, columns(width));
}

// Masked stores are slow on AMD's processors.
TV_AVX2_INLINE void store(float* to, __m256 v, int64_t width) {
  if (width >= 8)
    _mm256_storeu_ps(to, v);
  else
    _mm256_maskstore_ps(to, columns(width), v);
}

// Adds R numbers of x, a column that is stride long, times a panel's row.
template <int R>
TV_AVX2_INLINE void step(__m256 (&sum)[R][kVectors], const float* x, int64_t stride, const float* panel) {
  __m256 w[kVectors];
#pragma GCC unroll 3
  for (int v = 0; v < kVectors; v++) w[v] = _mm256_loadu_ps(panel + 8 * v);
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    const __m256 a = _mm256_broadcast_ss(x + r * stride);
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; v++) sum[r][v] = _mm256_fmadd_ps(a, w[v], sum[r][v]);
  }
}

// Sets s to the sums over the first depth / 8 * 8 input features, eight at a time. In assembly, as every instruction
// counts where a core shares its decoder with a neighbour: compilers add moves and loads, which take 4 to 12 % of the
// time.
TV_AVX2_INLINE int64_t steps(__m256 (&s)[4][kVectors], const float* x, int64_t stride, const float* panel,
                             int64_t depth) {
  int64_t left = depth / 8;
  if (left == 0) return 0;
  const float* x2 = x + 2 * stride;
  // clang-format off
  asm volatile(
      ".irp sum, %[s00], %[s01], %[s02], %[s10], %[s11], %[s12], %[s20], %[s21], %[s22], %[s30], %[s31], %[s32]\n"
      "vxorps \\sum, \\sum, \\sum\n"
      ".endr\n"
      ".p2align 5\n"
      "1:\n"
      ".irp k, 0, 1, 2, 3, 4, 5, 6, 7\n"
      "vmovups 96 * \\k(%[panel]), %%ymm0\n"
      "vmovups 96 * \\k + 32(%[panel]), %%ymm1\n"
      "vmovups 96 * \\k + 64(%[panel]), %%ymm2\n"
      "vbroadcastss 4 * \\k(%[x]), %%ymm3\n"
      "vfmadd231ps %%ymm0, %%ymm3, %[s00]\n"
      "vfmadd231ps %%ymm1, %%ymm3, %[s01]\n"
      "vfmadd231ps %%ymm2, %%ymm3, %[s02]\n"
      "vbroadcastss 4 * \\k(%[x], %[stride]), %%ymm3\n"
      "vfmadd231ps %%ymm0, %%ymm3, %[s10]\n"
      "vfmadd231ps %%ymm1, %%ymm3, %[s11]\n"
      "vfmadd231ps %%ymm2, %%ymm3, %[s12]\n"
      "vbroadcastss 4 * \\k(%[x2]), %%ymm3\n"
      "vfmadd231ps %%ymm0, %%ymm3, %[s20]\n"
      "vfmadd231ps %%ymm1, %%ymm3, %[s21]\n"
      "vfmadd231ps %%ymm2, %%ymm3, %[s22]\n"
      "vbroadcastss 4 * \\k(%[x2], %[stride]), %%ymm3\n"
      "vfmadd231ps %%ymm0, %%ymm3, %[s30]\n"
      "vfmadd231ps %%ymm1, %%ymm3, %[s31]\n"
      "vfmadd231ps %%ymm2, %%ymm3, %[s32]\n"
      ".endr\n"
      "add $768, %[panel]\n"
      "add $32, %[x]\n"
      "add $32, %[x2]\n"
      "dec %[left]\n"
      "jnz 1b\n"
      : [panel] "+r"(panel), [x] "+r"(x), [x2] "+r"(x2), [left] "+r"(left),
        [s00] "=&x"(s[0][0]), [s01] "=&x"(s[0][1]), [s02] "=&x"(s[0][2]),
        [s10] "=&x"(s[1][0]), [s11] "=&x"(s[1][1]), [s12] "=&x"(s[1][2]),
        [s20] "=&x"(s[2][0]), [s21] "=&x"(s[2][1]), [s22] "=&x"(s[2][2]),
        [s30] "=&x"(s[3][0]), [s31] "=&x"(s[3][1]), [s32] "=&x"(s[3][2])
      : [stride] "r"(4 * stride)
      : "ymm0", "ymm1", "ymm2", "ymm3", "cc", "memory");
  // clang-format on
  return depth / 8 * 8;
}

// Other tiles are the last ones of a block.
template <int R>
TV_AVX2_INLINE int64_t steps(__m256 (&)[R][kVectors], const float*, int64_t, const float*, int64_t) {
  return 0;
}

// R rows of y, over depth input features: the sums go to y where not last, and otherwise what comes of them. width is
// how many columns of the panel there are.
template <int R>
TV_AVX2_INLINE void tile(const Product& p, const float* x, const float* panel, int64_t depth, int64_t row,
                         int64_t column, int64_t width, bool first, bool last) {
  __m256 sum[R][kVectors];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; v++) sum[r][v] = _mm256_setzero_ps();
  for (int64_t i = steps(sum, x, p.in_features, panel, depth); i < depth; i++)
    step<R>(sum, x + i, p.in_features, panel + i * kWidth);
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    const int64_t at = (row + r) * p.out_features + column;
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; v++) {
      const int64_t left = width - 8 * v;
      if (left <= 0) continue;
      __m256 s = sum[r][v];
      if (!first) s = _mm256_add_ps(s, load(p.y + at + 8 * v, left));
      if (last) {
        if (p.epilogue.bias != nullptr) s = _mm256_add_ps(s, load(p.epilogue.bias + column + 8 * v, left));
        if (p.epilogue.residual != nullptr) s = _mm256_add_ps(s, load(p.epilogue.residual + at + 8 * v, left));
      }
      store(p.y + at + 8 * v, s, left);
    }
  }
}

template <int R>
TV_AVX2_INLINE void tiles(const Product& p, int64_t k, const float* panel, int64_t depth, int64_t* row, int64_t to,
                          int64_t column, bool first, bool last) {
  const int64_t width = std::min(kWidth, p.out_features - column);
  for (; *row + R <= to; *row += R)
    tile<R>(p, p.x + *row * p.in_features + k, panel, depth, *row, column, width, first, last);
}

TV_AVX2_INLINE __m256 activate(__m256 v, Activation a) {
  if (a == Activation::kReLU) return _mm256_max_ps(_mm256_setzero_ps(), v);  // the second where one is NaN
  const __m256 half = _mm256_mul_ps(v, _mm256_set1_ps(0.5f));
  return _mm256_fmadd_ps(half, erf(_mm256_mul_ps(v, _mm256_set1_ps(0.70710678f))), half);
}

// A panel's columns once more, while they are in the cache: within a tile it would need registers that there are not.
TV_AVX2_INLINE void activate(const Product& p, int64_t from, int64_t to, int64_t column, int64_t width) {
  for (int64_t row = from; row < to; row++) {
    float* y = p.y + row * p.out_features + column;
    for (int64_t i = 0; i < width; i += 8)
      store(y + i, activate(load(y + i, width - i), p.epilogue.activation), width - i);
  }
}

// A block of rows by a panel.
TV_AVX2 void block(const Product& p, int64_t from, int64_t to, int64_t panel) {
  const int64_t steps = (p.in_features + kDepth - 1) / kDepth, depth = (p.in_features + steps - 1) / steps;
  for (int64_t k = 0; k < p.in_features; k += depth) {
    const int64_t n = std::min(depth, p.in_features - k), column = panel * kWidth;
    const float* w = p.panels + (panel * p.in_features + k) * kWidth;
    const bool first = k == 0, last = k + n >= p.in_features;
    int64_t row = from;
    tiles<kRows>(p, k, w, n, &row, to, column, first, last);
    tiles<2>(p, k, w, n, &row, to, column, first, last);
    tiles<1>(p, k, w, n, &row, to, column, first, last);
    if (last && p.epilogue.activation != Activation::kNone)
      activate(p, from, to, column, std::min(kWidth, p.out_features - column));
  }
}

}  // namespace

void gemm(const float* x, int64_t rows, int64_t in_features, const float* panels, int64_t out_features,
          const Epilogue& epilogue, float* y) {
  const Product p{x, in_features, panels, out_features, epilogue, y};
  const int64_t count = (out_features + kWidth - 1) / kWidth, blocks = (rows + kBlock - 1) / kBlock;
  const int64_t size = ((rows + blocks - 1) / blocks + kRows - 1) / kRows * kRows;
  each_index(count * blocks, [&](int64_t i) {
    const int64_t from = i / count * size;
    block(p, from, std::min(rows, from + size), i % count);
  });
}

void gemm_on_this_thread(const float* x, int64_t rows, int64_t in_features, const float* panels, int64_t out_features,
                         const Epilogue& epilogue, float* y) {
  const Product p{x, in_features, panels, out_features, epilogue, y};
  for (int64_t panel = 0; panel * kWidth < out_features; panel++)
    for (int64_t from = 0; from < rows; from += kBlock) block(p, from, std::min(rows, from + kBlock), panel);
}

int64_t packed_size(int64_t out_features, int64_t in_features) {
  return (out_features + kWidth - 1) / kWidth * kWidth * in_features;
}

#else

bool has_gemm() { return false; }
at::Tensor pack_panels(const at::Tensor& weight) { return weight; }
void gemm(const float*, int64_t, int64_t, const float*, int64_t, const Epilogue&, float*) {
  TORCH_CHECK(false, "gemm: not for this processor");
}
void gemm_on_this_thread(const float*, int64_t, int64_t, const float*, int64_t, const Epilogue&, float*) {}
int64_t packed_size(int64_t, int64_t) { return 0; }

#endif

}  // namespace tv
