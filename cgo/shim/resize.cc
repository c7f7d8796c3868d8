// Pillow's 8-bit resampling (Resample.c and ScaleAffine in Geometry.c) to the bit, for strided memory.
//
// Pillow computes, for each output value, (2^21 + sum(pixel * k)) >> 22 in 32-bit integers, with
// coefficients k = round(weight * 2^22). The vector kernels split k into hi * 2^15 + lo, both of which
// fit 16 bits, and add up the two parts with multiply-add of 16-bit pairs. Integer sums do not depend
// on the order, so the bits are the same on every path.
#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#define TV_X86 1
#else
#define TV_X86 0
#endif

// A fused multiply-add would round the weights otherwise than Pillow's build for x86-64 does.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace tv::image {
namespace {

constexpr int kPrecision = 22;
constexpr int32_t kHalf = 1 << (kPrecision - 1);
constexpr int kSplit = 15;
constexpr int32_t kLowMask = (1 << kSplit) - 1;
// Bytes behind a row that the vector kernels may read (and never use).
constexpr int64_t kSlack = 32;
constexpr int64_t kMaxSide = 1 << 24;  // float32 boxes are exact up to here
constexpr int kRowGroup = 4;

// --- weights --------------------------------------------------------------------------------------

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= M_PI;
  return std::sin(x) / x;
}

double weight(Filter filter, double x) {
  switch (filter) {
    case Filter::kBox:
      return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    case Filter::kBilinear:
      x = std::fabs(x);
      return x < 1.0 ? 1.0 - x : 0.0;
    case Filter::kHamming:
      x = std::fabs(x);
      if (x == 0.0) return 1.0;
      if (x >= 1.0) return 0.0;
      x *= M_PI;
      return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));
    case Filter::kBicubic: {
      constexpr double a = -0.5;
      x = std::fabs(x);
      if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
      if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
      return 0.0;
    }
    case Filter::kLanczos:
      return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
    case Filter::kNearest:
      break;
  }
  throw std::invalid_argument("image: unknown filter");
}

double support_of(Filter filter) {
  switch (filter) {
    case Filter::kBox:
      return 0.5;
    case Filter::kBilinear:
    case Filter::kHamming:
      return 1.0;
    case Filter::kBicubic:
      return 2.0;
    case Filter::kLanczos:
      return 3.0;
    case Filter::kNearest:
      break;
  }
  throw std::invalid_argument("image: unknown filter");
}

// The taps of outputs [first, first + count) of one axis: output i reads inputs
// [begin[i], begin[i] + taps[i]) with coefficients k[i * width ...], zero behind taps[i].
struct Axis {
  std::vector<int64_t> begin;
  std::vector<int32_t> taps;
  std::vector<int32_t> k;
  int64_t width = 0;
  int32_t most = 0;  // the largest of taps

  int64_t lowest() const { return begin.front(); }
  int64_t highest() const { return begin.back() + taps.back(); }
};

Axis make_axis(int64_t in, float in0, float in1, int64_t out, int64_t first, int64_t count, Filter filter) {
  const double scale = static_cast<double>(in1 - in0) / static_cast<double>(out);
  const double filterscale = std::max(scale, 1.0);
  const double support = support_of(filter) * filterscale;
  const int64_t ksize = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  const double inverse = 1.0 / filterscale;
  Axis a;
  a.width = (ksize + 15) / 16 * 16;
  a.begin.resize(count);
  a.taps.resize(count);
  a.k.assign(static_cast<size_t>(count) * a.width, 0);
  std::vector<double> w(ksize);
  for (int64_t i = 0; i < count; i++) {
    const double center = in0 + (static_cast<double>(first + i) + 0.5) * scale;
    const int64_t lo = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const int64_t hi = std::min<int64_t>(in, static_cast<int64_t>(center + support + 0.5));
    const int64_t n = hi - lo;
    double sum = 0.0;
    for (int64_t x = 0; x < n; x++) {
      w[x] = weight(filter, (static_cast<double>(x + lo) - center + 0.5) * inverse);
      sum += w[x];
    }
    int32_t* k = &a.k[i * a.width];
    for (int64_t x = 0; x < n; x++) {
      if (sum != 0.0) w[x] /= sum;
      k[x] = static_cast<int32_t>((w[x] < 0 ? -0.5 : 0.5) + w[x] * (1 << kPrecision));
    }
    a.begin[i] = lo;
    a.taps[i] = static_cast<int32_t>(n);
    a.most = std::max(a.most, a.taps[i]);
  }
  return a;
}

uint8_t clip(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kPrecision, 0, 255)); }

// --- kernels --------------------------------------------------------------------------------------

// The coefficients of an axis in the order in which a kernel reads them.
// for each group of `group` taps, hi[group] and then lo[group].
struct Packed {
  std::vector<int16_t> k;
  int64_t stride = 0;  // of one output, in int16
  int group = 0;
};

Packed pack(const Axis& a, int group) {
  Packed p;
  p.group = group;
  const int64_t groups = (a.most + group - 1) / group;
  p.stride = groups * group * 2;
  p.k.resize(a.begin.size() * p.stride);
  for (size_t i = 0; i < a.begin.size(); i++) {
    for (int64_t g = 0; g < groups; g++) {
      int16_t* out = &p.k[i * p.stride + g * group * 2];
      for (int t = 0; t < group; t++) {
        const int32_t k = a.k[i * a.width + g * group + t];
        out[t] = static_cast<int16_t>(k >> kSplit);
        out[group + t] = static_cast<int16_t>(k & kLowMask);
      }
    }
  }
  return p;
}

// One output row of `bytes` values from `taps` input rows.
void vertical_portable(const uint8_t* const* rows, const int32_t* k, int32_t taps, uint8_t* out, int64_t bytes) {
  constexpr int64_t kBlock = 512;
  int32_t sum[kBlock];
  for (int64_t x0 = 0; x0 < bytes; x0 += kBlock) {
    const int64_t n = std::min(kBlock, bytes - x0);
    std::fill_n(sum, n, kHalf);
    for (int32_t t = 0; t < taps; t++) {
      const uint8_t* row = rows[t] + x0;
      const int32_t c = k[t];
      for (int64_t x = 0; x < n; x++) sum[x] += row[x] * c;
    }
    for (int64_t x = 0; x < n; x++) out[x0 + x] = clip(sum[x]);
  }
}

// One output row of pixels of P interleaved values.
template <int P>
void horizontal_portable(const uint8_t* in, const Axis& a, uint8_t* out) {
  const int64_t n = static_cast<int64_t>(a.begin.size());
  for (int64_t x = 0; x < n; x++, out += P) {
    int32_t s0 = kHalf, s1 = kHalf, s2 = kHalf, s3 = kHalf;
    const uint8_t* p = in + a.begin[x] * P;
    const int32_t* k = &a.k[x * a.width];
    for (int32_t t = 0; t < a.taps[x]; t++, p += P) {
      s0 += p[0] * k[t];
      if constexpr (P > 1) s1 += p[1] * k[t];
      if constexpr (P > 2) s2 += p[2] * k[t];
      if constexpr (P > 3) s3 += p[3] * k[t];
    }
    out[0] = clip(s0);
    if constexpr (P > 1) out[1] = clip(s1);
    if constexpr (P > 2) out[2] = clip(s2);
    if constexpr (P > 3) out[3] = clip(s3);
  }
}

void horizontal_portable(int pitch, const uint8_t* in, const Axis& a, uint8_t* out) {
  switch (pitch) {
    case 1:
      return horizontal_portable<1>(in, a, out);
    case 2:
      return horizontal_portable<2>(in, a, out);
    case 3:
      return horizontal_portable<3>(in, a, out);
    default:
      return horizontal_portable<4>(in, a, out);
  }
}

#if TV_X86
#define TV_AVX2 __attribute__((target("avx2")))

// Sums of the two halves to 8 bits' range, still as int32.
TV_AVX2 inline __m256i join(__m256i hi, __m256i lo) {
  return _mm256_srai_epi32(_mm256_add_epi32(lo, _mm256_slli_epi32(hi, kSplit)), kPrecision);
}

// Two 16-bit coefficients in each 32-bit place.
TV_AVX2 inline __m256i pair(const int16_t* k) {
  int32_t both;
  std::memcpy(&both, k, sizeof both);
  return _mm256_set1_epi32(both);
}

// 32 values of one output row.
TV_AVX2 inline __m256i vertical32(const uint8_t* const* rows, const int16_t* k, int32_t pairs, int64_t x) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i half = _mm256_set1_epi32(kHalf);
  __m256i h0 = zero, h1 = zero, h2 = zero, h3 = zero, l0 = half, l1 = half, l2 = half, l3 = half;
  for (int32_t t = 0; t < pairs; t++) {
    const __m256i kh = pair(k + 4 * t), kl = pair(k + 4 * t + 2);
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[2 * t] + x));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[2 * t + 1] + x));
    const __m256i ab0 = _mm256_unpacklo_epi8(a, b), ab1 = _mm256_unpackhi_epi8(a, b);
    const __m256i p0 = _mm256_unpacklo_epi8(ab0, zero), p1 = _mm256_unpackhi_epi8(ab0, zero);
    const __m256i p2 = _mm256_unpacklo_epi8(ab1, zero), p3 = _mm256_unpackhi_epi8(ab1, zero);
    h0 = _mm256_add_epi32(h0, _mm256_madd_epi16(p0, kh));
    l0 = _mm256_add_epi32(l0, _mm256_madd_epi16(p0, kl));
    h1 = _mm256_add_epi32(h1, _mm256_madd_epi16(p1, kh));
    l1 = _mm256_add_epi32(l1, _mm256_madd_epi16(p1, kl));
    h2 = _mm256_add_epi32(h2, _mm256_madd_epi16(p2, kh));
    l2 = _mm256_add_epi32(l2, _mm256_madd_epi16(p2, kl));
    h3 = _mm256_add_epi32(h3, _mm256_madd_epi16(p3, kh));
    l3 = _mm256_add_epi32(l3, _mm256_madd_epi16(p3, kl));
  }
  return _mm256_packus_epi16(_mm256_packs_epi32(join(h0, l0), join(h1, l1)),
                             _mm256_packs_epi32(join(h2, l2), join(h3, l3)));
}

// rows holds an even number of rows, 2 * pairs; bytes >= 32.
TV_AVX2 void vertical_avx2(const uint8_t* const* rows, const int16_t* k, int32_t pairs, uint8_t* out, int64_t bytes) {
  for (int64_t x = 0; x < bytes; x += 32) {
    x = std::min(x, bytes - 32);  // the last step overlaps the one before
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + x), vertical32(rows, k, pairs, x));
  }
}

// Four rows of pixels of P = 3 or 4 interleaved values; groups of 4 taps.
template <int P>
TV_AVX2 void horizontal_avx2(const uint8_t* const* in, const Axis& a, const Packed& packed, uint8_t* const* out) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i half = _mm256_inserti128_si256(zero, _mm_set1_epi32(kHalf), 0);
  // Lane 0 takes taps 0 and 1 of each channel, lane 1 taps 2 and 3, widened to 16 bits.
  const __m256i spread = P == 3 ? _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                                                   6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1)
                                : _mm256_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1,  //
                                                   8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1);
  const __m256i pick_hi = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  const __m256i pick_lo = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
  const int64_t n = static_cast<int64_t>(a.begin.size());
  for (int64_t x = 0; x < n; x++) {
    const int64_t at = a.begin[x] * P;
    const int16_t* k = &packed.k[x * packed.stride];
    __m256i h0 = zero, h1 = zero, h2 = zero, h3 = zero, l0 = half, l1 = half, l2 = half, l3 = half;
    const int32_t taps = a.taps[x];
    for (int32_t t = 0; t < taps; t += 4, k += 8) {
      const __m256i both = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(k)));
      const __m256i kh = _mm256_permutevar8x32_epi32(both, pick_hi);
      const __m256i kl = _mm256_permutevar8x32_epi32(both, pick_lo);
      const int64_t o = at + t * P;
#define TV_ROW(i, h, l)                                                               \
  {                                                                                   \
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in[i] + o)); \
    const __m256i p = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(raw), spread);  \
    h = _mm256_add_epi32(h, _mm256_madd_epi16(p, kh));                                \
    l = _mm256_add_epi32(l, _mm256_madd_epi16(p, kl));                                \
  }
      TV_ROW(0, h0, l0)
      TV_ROW(1, h1, l1)
      TV_ROW(2, h2, l2)
      TV_ROW(3, h3, l3)
#undef TV_ROW
    }
    const __m256i s0 = _mm256_add_epi32(l0, _mm256_slli_epi32(h0, kSplit));
    const __m256i s1 = _mm256_add_epi32(l1, _mm256_slli_epi32(h1, kSplit));
    const __m256i s2 = _mm256_add_epi32(l2, _mm256_slli_epi32(h2, kSplit));
    const __m256i s3 = _mm256_add_epi32(l3, _mm256_slli_epi32(h3, kSplit));
    // Rows 0 and 1 in the lanes of one register, 2 and 3 in those of another.
    const __m256i r01 = _mm256_srai_epi32(
        _mm256_add_epi32(_mm256_permute2x128_si256(s0, s1, 0x20), _mm256_permute2x128_si256(s0, s1, 0x31)), kPrecision);
    const __m256i r23 = _mm256_srai_epi32(
        _mm256_add_epi32(_mm256_permute2x128_si256(s2, s3, 0x20), _mm256_permute2x128_si256(s2, s3, 0x31)), kPrecision);
    const __m256i words = _mm256_packs_epi32(r01, r23);       // r0 r2 | r1 r3
    const __m256i bytes = _mm256_packus_epi16(words, words);  // r0 r2 r0 r2 | r1 r3 r1 r3
    const __m128i even = _mm256_castsi256_si128(bytes), odd = _mm256_extracti128_si256(bytes, 1);
    const int32_t v[4] = {_mm_cvtsi128_si32(even), _mm_cvtsi128_si32(odd), _mm_extract_epi32(even, 1),
                          _mm_extract_epi32(odd, 1)};
    // Four bytes are written where three are wanted, except at the end of the row.
    if (P == 4 || x + 1 < n) {
      for (int i = 0; i < kRowGroup; i++) std::memcpy(out[i] + x * P, &v[i], 4);
    } else {
      for (int i = 0; i < kRowGroup; i++) std::memcpy(out[i] + x * P, &v[i], P);
    }
  }
}

// Four rows of single values; groups of 16 taps.
TV_AVX2 void horizontal1_avx2(const uint8_t* const* in, const Axis& a, const Packed& packed, uint8_t* const* out) {
  const __m256i zero = _mm256_setzero_si256();
  const int64_t n = static_cast<int64_t>(a.begin.size());
  for (int64_t x = 0; x < n; x++) {
    const int64_t at = a.begin[x];
    const int16_t* k = &packed.k[x * packed.stride];
    __m256i h0 = zero, h1 = zero, h2 = zero, h3 = zero, l0 = zero, l1 = zero, l2 = zero, l3 = zero;
    const int32_t taps = a.taps[x];
    for (int32_t t = 0; t < taps; t += 16, k += 32) {
      const __m256i kh = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(k));
      const __m256i kl = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(k + 16));
#define TV_ROW(i, h, l)                                                                                        \
  {                                                                                                            \
    const __m256i p = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in[i] + at + t))); \
    h = _mm256_add_epi32(h, _mm256_madd_epi16(p, kh));                                                         \
    l = _mm256_add_epi32(l, _mm256_madd_epi16(p, kl));                                                         \
  }
      TV_ROW(0, h0, l0)
      TV_ROW(1, h1, l1)
      TV_ROW(2, h2, l2)
      TV_ROW(3, h3, l3)
#undef TV_ROW
    }
    const __m256i s0 = _mm256_add_epi32(l0, _mm256_slli_epi32(h0, kSplit));
    const __m256i s1 = _mm256_add_epi32(l1, _mm256_slli_epi32(h1, kSplit));
    const __m256i s2 = _mm256_add_epi32(l2, _mm256_slli_epi32(h2, kSplit));
    const __m256i s3 = _mm256_add_epi32(l3, _mm256_slli_epi32(h3, kSplit));
    const __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(s0, s1), _mm256_hadd_epi32(s2, s3));
    __m128i v = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    v = _mm_srai_epi32(_mm_add_epi32(v, _mm_set1_epi32(kHalf)), kPrecision);
    v = _mm_packs_epi32(v, v);
    const auto b = static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_packus_epi16(v, v)));
    for (int i = 0; i < kRowGroup; i++) out[i][x] = static_cast<uint8_t>(b >> (8 * i));
  }
}

bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2") != 0;
  return has;
}
#else
bool has_avx2() { return false; }
#endif

// Both passes' coefficients and the choice of kernel for them.
class VerticalPass {
 public:
  VerticalPass(Axis axis, bool avx2) : axis_(std::move(axis)), avx2_(avx2) {
    if (avx2_) packed_ = pack(axis_, 2);
    rows_.resize(axis_.most + 1);
  }
  const Axis& axis() const { return axis_; }

  // row(i) gives input row i; the pointers must stay good for this call.
  template <typename Row>
  void run(int64_t y, Row&& row, uint8_t* out, int64_t bytes) {
    const int32_t taps = axis_.taps[y];
    for (int32_t t = 0; t < taps; t++) rows_[t] = row(axis_.begin[y] + t);
#if TV_X86
    if (avx2_ && bytes >= 32) {
      rows_[taps] = taps > 0 ? rows_[taps - 1] : nullptr;  // an odd last tap is paired with a zero coefficient
      vertical_avx2(rows_.data(), &packed_.k[y * packed_.stride], (taps + 1) / 2, out, bytes);
      return;
    }
#endif
    vertical_portable(rows_.data(), &axis_.k[y * axis_.width], taps, out, bytes);
  }

 private:
  Axis axis_;
  Packed packed_;
  bool avx2_;
  std::vector<const uint8_t*> rows_;
};

class HorizontalPass {
 public:
  HorizontalPass(Axis axis, int pitch, bool avx2) : axis_(std::move(axis)), pitch_(pitch), avx2_(avx2 && pitch != 2) {
    if (avx2_) packed_ = pack(axis_, pitch == 1 ? 16 : 4);
  }
  const Axis& axis() const { return axis_; }
  int64_t out_bytes() const { return static_cast<int64_t>(axis_.begin.size()) * pitch_; }
  // Whether the kernel reads up to kSlack bytes behind a row.
  bool overreads() const { return avx2_; }

  // n <= 4 rows.
  void run(const uint8_t* const* in, uint8_t* const* out, int n) {
#if TV_X86
    if (avx2_) {
      const uint8_t* from[kRowGroup];
      uint8_t* to[kRowGroup];
      if (n < kRowGroup) dump_.resize(out_bytes());
      for (int i = 0; i < kRowGroup; i++) {
        from[i] = in[std::min(i, n - 1)];
        to[i] = i < n ? out[i] : dump_.data();
      }
      if (pitch_ == 1) return horizontal1_avx2(from, axis_, packed_, to);
      if (pitch_ == 3) return horizontal_avx2<3>(from, axis_, packed_, to);
      return horizontal_avx2<4>(from, axis_, packed_, to);
    }
#endif
    for (int i = 0; i < n; i++) horizontal_portable(pitch_, in[i], axis_, out[i]);
  }

 private:
  Axis axis_;
  Packed packed_;
  int pitch_;
  bool avx2_;
  std::vector<uint8_t> dump_;
};

// --- where rows come from and go to ---------------------------------------------------------------

// Rows of `pitch` interleaved values a pixel.
struct Rows {
  const uint8_t* data;
  int64_t height, width, stride;
  int pitch;

  const uint8_t* row(int64_t y) const { return data + y * stride; }
  // Whether kSlack bytes behind the row still belong to the image.
  bool slack(int64_t y) const {
    const uint8_t* end = data + (height - 1) * stride + width * pitch;
    return row(y) + width * pitch + kSlack <= end;
  }
};

// Takes finished rows of `pitch` interleaved values and stores `channels` of them.
struct ByteSink {
  Target<uint8_t> target;
  int channels, pitch;

  uint8_t* direct(int64_t y) const {
    const bool same = channels == pitch && target.stride_pixel == pitch && (pitch == 1 || target.stride_channel == 1);
    return same ? target.data + y * target.stride_row : nullptr;
  }
  void store(int64_t y, const uint8_t* row, int64_t n) const {
    uint8_t* out = target.data + y * target.stride_row;
    if (channels == 3 && target.stride_pixel == 1) {
      uint8_t *r = out, *g = out + target.stride_channel, *b = out + 2 * target.stride_channel;
      for (int64_t x = 0; x < n; x++, row += pitch) {
        r[x] = row[0];
        g[x] = row[1];
        b[x] = row[2];
      }
      return;
    }
    for (int c = 0; c < channels; c++) {
      uint8_t* p = out + c * target.stride_channel;
      for (int64_t x = 0; x < n; x++) p[x * target.stride_pixel] = row[x * pitch + c];
    }
  }
};

struct FloatSink {
  Target<float> target;
  const float* table;
  int channels, pitch;

  uint8_t* direct(int64_t) const { return nullptr; }
  void store(int64_t y, const uint8_t* row, int64_t n) const {
    float* out = target.data + y * target.stride_row;
    if (channels == 3 && target.stride_pixel == 1) {
      float *r = out, *g = out + target.stride_channel, *b = out + 2 * target.stride_channel;
      for (int64_t x = 0; x < n; x++, row += pitch) {
        r[x] = table[row[0]];
        g[x] = table[256 + row[1]];
        b[x] = table[512 + row[2]];
      }
      return;
    }
    for (int c = 0; c < channels; c++) {
      float* p = out + c * target.stride_channel;
      const float* t = table + 256 * c;
      for (int64_t x = 0; x < n; x++) p[x * target.stride_pixel] = t[row[x * pitch + c]];
    }
  }
};

// --- the whole ------------------------------------------------------------------------------------

struct Box {
  float x0, y0, x1, y1;
};

// The part of the window that lies inside the resized image.
struct Part {
  int64_t top, left, height, width;
};

template <typename Sink>
void copy_part(const Rows& in, const Part& part, const Sink& sink) {
  for (int64_t y = 0; y < part.height; y++) {
    const uint8_t* from = in.row(part.top + y) + part.left * in.pitch;
    if (uint8_t* to = sink.direct(y)) {
      std::memcpy(to, from, static_cast<size_t>(part.width * in.pitch));
    } else {
      sink.store(y, from, part.width);
    }
  }
}

// Pillow's nearest steps through the source by adding up the scale, which is not the same as
// multiplying by it. The sum stays half a step short of the end, so no place lies outside.
std::vector<int32_t> nearest_positions(int64_t in, float in0, float in1, int64_t out, int64_t first, int64_t count) {
  const double step = static_cast<double>(in1 - in0) / static_cast<double>(out);
  double at = in0 + step * 0.5;
  for (int64_t i = 0; i < first; i++) at += step;
  std::vector<int32_t> result(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++, at += step) {
    result[i] = static_cast<int32_t>(std::min<int64_t>(static_cast<int64_t>(at), in - 1));
  }
  return result;
}

// One output row of pixels of P interleaved values, from the places `at` (in bytes) of the source row.
template <int P>
void gather(const uint8_t* in, int64_t width, const std::vector<int32_t>& at, uint8_t* out) {
  const int32_t* x = at.data();
  const int64_t n = static_cast<int64_t>(at.size());
  int64_t i = 0;
  if constexpr (P == 3) {
    // Four bytes at a time, but neither behind the last pixel of the source nor of the target.
    const int64_t inner = std::lower_bound(x, x + n, (width - 1) * 3) - x;
    for (const int64_t m = std::min(inner, n - 1); i < m; i++) std::memcpy(out + i * 3, in + x[i], 4);
  }
  if constexpr (P == 1) {
    for (; i + 4 <= n; i += 4) {
      const uint8_t four[4] = {in[x[i]], in[x[i + 1]], in[x[i + 2]], in[x[i + 3]]};
      std::memcpy(out + i, four, 4);
    }
  }
  for (; i < n; i++) std::memcpy(out + i * P, in + x[i], P);
}

template <typename Sink>
void nearest(const Rows& in, const Plan& plan, const Box& box, const Part& part, const Sink& sink) {
  const auto ys = nearest_positions(in.height, box.y0, box.y1, plan.height, part.top, part.height);
  auto xs = nearest_positions(in.width, box.x0, box.x1, plan.width, part.left, part.width);
  for (int32_t& x : xs) x *= in.pitch;
  std::vector<uint8_t> line(static_cast<size_t>(part.width * in.pitch));
  for (int64_t y = 0; y < part.height; y++) {
    uint8_t* to = sink.direct(y);
    uint8_t* out = to ? to : line.data();
    if (in.pitch == 1) {
      gather<1>(in.row(ys[y]), in.width, xs, out);
    } else if (in.pitch == 2) {
      gather<2>(in.row(ys[y]), in.width, xs, out);
    } else if (in.pitch == 3) {
      gather<3>(in.row(ys[y]), in.width, xs, out);
    } else {
      gather<4>(in.row(ys[y]), in.width, xs, out);
    }
    if (!to) sink.store(y, out, part.width);
  }
}

template <typename Sink>
void resample(const Rows& in, const Plan& plan, const Box& box, const Part& part, bool avx2, const Sink& sink) {
  const bool need_h = plan.width != in.width || box.x0 != 0 || box.x1 != static_cast<float>(plan.width);
  const bool need_v = plan.height != in.height || box.y0 != 0 || box.y1 != static_cast<float>(plan.height);
  bool vertical_first;
  if (plan.pass_order == PassOrder::kPillow13) {
    const int64_t shrink = in.height - plan.height;
    vertical_first = shrink > 0 && shrink > (in.width - plan.width) * 2;
  } else {
    vertical_first = in.height > in.width * 100 && plan.height < in.height;
  }

  std::unique_ptr<VerticalPass> v;
  std::unique_ptr<HorizontalPass> h;
  if (need_v) {
    v = std::make_unique<VerticalPass>(
        make_axis(in.height, box.y0, box.y1, plan.height, part.top, part.height, plan.filter), avx2);
  }
  if (need_h) {
    h = std::make_unique<HorizontalPass>(
        make_axis(in.width, box.x0, box.x1, plan.width, part.left, part.width, plan.filter), in.pitch, avx2);
  }
  const int64_t out_bytes = part.width * in.pitch;
  std::vector<uint8_t> line(static_cast<size_t>(out_bytes + kSlack));
  const auto finish = [&](int64_t y, const uint8_t* row) {
    if (uint8_t* to = sink.direct(y)) {
      std::memcpy(to, row, static_cast<size_t>(out_bytes));
    } else {
      sink.store(y, row, part.width);
    }
  };

  // Source rows whose slack is not the image's are read from a copy.
  std::vector<uint8_t> tail[kRowGroup];
  const auto safe_row = [&](int64_t y, int slot) {
    if (!h->overreads() || in.slack(y)) return in.row(y);
    const size_t n = static_cast<size_t>(in.width * in.pitch);
    tail[slot].resize(n + kSlack);
    std::memcpy(tail[slot].data(), in.row(y), n);
    return static_cast<const uint8_t*>(tail[slot].data());
  };

  if (!need_h) {
    for (int64_t y = 0; y < part.height; y++) {
      uint8_t* to = sink.direct(y);
      v->run(y, [&](int64_t r) { return in.row(r) + part.left * in.pitch; }, to ? to : line.data(), out_bytes);
      if (!to) finish(y, line.data());
    }
    return;
  }

  if (!need_v || vertical_first) {
    // Four rows at a time: each from the vertical pass or straight from the source, then across.
    const int64_t first = h->axis().lowest(), last = h->axis().highest();
    const int64_t bytes = (last - first) * in.pitch;
    const int64_t stride = bytes + kSlack;
    std::vector<uint8_t> mid(need_v ? static_cast<size_t>(stride * kRowGroup) : 0);
    std::vector<uint8_t> lines(static_cast<size_t>((out_bytes + kSlack) * kRowGroup));
    for (int64_t y = 0; y < part.height; y += kRowGroup) {
      const int n = static_cast<int>(std::min<int64_t>(kRowGroup, part.height - y));
      const uint8_t* from[kRowGroup];
      uint8_t* to[kRowGroup];
      for (int i = 0; i < n; i++) {
        if (need_v) {
          uint8_t* m = mid.data() + i * stride;
          v->run(y + i, [&](int64_t r) { return in.row(r) + first * in.pitch; }, m, bytes);
          from[i] = m - first * in.pitch;
        } else {
          from[i] = safe_row(part.top + y + i, i);
        }
        to[i] = sink.direct(y + i);
        if (!to[i]) to[i] = lines.data() + i * (out_bytes + kSlack);
      }
      h->run(from, to, n);
      for (int i = 0; i < n; i++) {
        if (!sink.direct(y + i)) sink.store(y + i, to[i], part.width);
      }
    }
    return;
  }

  // Horizontal first. Only the rows that the vertical pass needs are made, and only as many are kept
  // as one output row reads, so that they stay in the first-level cache.
  const int64_t capacity = v->axis().most + kRowGroup;
  const int64_t stride = out_bytes + kSlack;
  std::vector<uint8_t> ring(static_cast<size_t>(stride * capacity));
  const auto slot = [&](int64_t r) { return ring.data() + (r % capacity) * stride; };
  int64_t made = v->axis().lowest();
  const int64_t end = v->axis().highest();
  for (int64_t y = 0; y < part.height; y++) {
    const int64_t begin = v->axis().begin[y], need = begin + v->axis().taps[y];
    made = std::max(made, begin);
    while (made < need) {
      const int n = static_cast<int>(std::min<int64_t>(kRowGroup, end - made));
      const uint8_t* from[kRowGroup];
      uint8_t* to[kRowGroup];
      for (int i = 0; i < n; i++) {
        from[i] = safe_row(made + i, i);
        to[i] = slot(made + i);
      }
      h->run(from, to, n);
      made += n;
    }
    uint8_t* to = sink.direct(y);
    v->run(y, slot, to ? to : line.data(), out_bytes);
    if (!to) finish(y, line.data());
  }
}

template <typename Sink>
void run_rows(const Rows& in, const Plan& plan, const Box& box, const Part& part, bool avx2, const Sink& sink) {
  const auto whole = [](float v) { return v == std::floor(v); };
  if (whole(box.x0) && whole(box.y0) && box.x1 - box.x0 == static_cast<float>(plan.width) &&
      box.y1 - box.y0 == static_cast<float>(plan.height)) {
    Part moved = part;
    moved.top += static_cast<int64_t>(box.y0);
    moved.left += static_cast<int64_t>(box.x0);
    copy_part(in, moved, sink);
  } else if (plan.filter == Filter::kNearest) {
    nearest(in, plan, box, part, sink);
  } else {
    resample(in, plan, box, part, avx2, sink);
  }
}

void check(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(std::string("image: ") + what);
}

// The source as packed interleaved bytes, for layouts that the kernels do not read.
std::vector<uint8_t> packed_copy(const Source& s) {
  std::vector<uint8_t> copy(static_cast<size_t>(s.height * s.width * s.channels));
  uint8_t* p = copy.data();
  for (int64_t y = 0; y < s.height; y++) {
    for (int64_t x = 0; x < s.width; x++) {
      const uint8_t* q = s.data + y * s.stride_row + x * s.stride_pixel;
      for (int64_t c = 0; c < s.channels; c++) *p++ = q[c * s.stride_channel];
    }
  }
  return copy;
}

// Pillow's RGBA to RGBa, in place.
void multiply_alpha(std::vector<uint8_t>& pixels, int channels) {
  for (size_t i = 0; i < pixels.size(); i += channels) {
    const uint32_t alpha = pixels[i + channels - 1];
    for (int c = 0; c + 1 < channels; c++) {
      const uint32_t v = pixels[i + c] * alpha + 128;
      pixels[i + c] = static_cast<uint8_t>(((v >> 8) + v) >> 8);
    }
  }
}

// Pillow's RGBa to RGBA, on the way to another sink.
template <typename Inner>
struct DivideAlpha {
  const Inner& inner;
  int channels;
  mutable std::vector<uint8_t> line{};

  uint8_t* direct(int64_t) const { return nullptr; }
  void store(int64_t y, const uint8_t* row, int64_t n) const {
    line.assign(row, row + n * channels);
    for (size_t i = 0; i < line.size(); i += channels) {
      const uint32_t alpha = line[i + channels - 1];
      if (alpha == 0 || alpha == 255) continue;
      for (int c = 0; c + 1 < channels; c++) {
        line[i + c] = static_cast<uint8_t>(std::min<uint32_t>(255, 255 * line[i + c] / alpha));
      }
    }
    if (uint8_t* to = inner.direct(y)) {
      std::memcpy(to, line.data(), line.size());
    } else {
      inner.store(y, line.data(), n);
    }
  }
};

FloatSink make_sink(const Target<float>& t, const float* table, int channels, int pitch) {
  return {t, table, channels, pitch};
}
ByteSink make_sink(const Target<uint8_t>& t, const float*, int channels, int pitch) { return {t, channels, pitch}; }

float filled(float, const float* table, int c, uint8_t v) { return table[256 * c + v]; }
uint8_t filled(uint8_t, const float*, int, uint8_t v) { return v; }

template <typename T>
void run(const Source& s, const Plan& plan, const float* table, const Target<T>& target) {
  check(s.data != nullptr && target.data != nullptr, "no memory given");
  check(s.height > 0 && s.width > 0 && s.height <= kMaxSide && s.width <= kMaxSide, "bad size of the source");
  check(s.channels >= 1 && s.channels <= kMaxChannels, "1 to 4 channels can be resized");
  check(plan.height > 0 && plan.width > 0 && plan.height <= kMaxSide && plan.width <= kMaxSide,
        "height and width must be > 0");
  check(plan.window_height > 0 && plan.window_width > 0 && plan.window_height <= kMaxSide &&
            plan.window_width <= kMaxSide,
        "bad size of the window");
  check(std::abs(plan.top) <= kMaxSide && std::abs(plan.left) <= kMaxSide, "bad place of the window");
  check(static_cast<int32_t>(plan.filter) >= 0 && static_cast<int32_t>(plan.filter) <= 5, "unknown filter");
  const int channels = static_cast<int>(s.channels);
  check(!plan.premultiply || channels == 2 || channels == 4, "alpha needs 2 or 4 channels");

  Box box{plan.box[0], plan.box[1], plan.box[2], plan.box[3]};
  if (box.x0 == 0 && box.y0 == 0 && box.x1 == 0 && box.y1 == 0) {
    box = {0, 0, static_cast<float>(s.width), static_cast<float>(s.height)};
  }
  check(box.x0 >= 0 && box.y0 >= 0, "box offset can't be negative");
  check(box.x1 <= static_cast<float>(s.width) && box.y1 <= static_cast<float>(s.height),
        "box can't exceed original image size");
  check(box.x1 > box.x0 && box.y1 > box.y0, "box can't be empty");

  // The window cut to the resized image; what is outside gets the fill value.
  Part part;
  part.top = std::max<int64_t>(plan.top, 0);
  part.left = std::max<int64_t>(plan.left, 0);
  part.height = std::min(plan.top + plan.window_height, plan.height) - part.top;
  part.width = std::min(plan.left + plan.window_width, plan.width) - part.left;
  const bool covered = part.height == plan.window_height && part.width == plan.window_width;
  const bool empty = part.height <= 0 || part.width <= 0;
  if (!covered) {
    for (int c = 0; c < channels; c++) {
      const T v = filled(T{}, table, c, plan.fill[c]);
      for (int64_t y = 0; y < plan.window_height; y++) {
        const bool inside = !empty && y >= part.top - plan.top && y < part.top - plan.top + part.height;
        T* row = target.data + y * target.stride_row + c * target.stride_channel;
        for (int64_t x = 0; x < plan.window_width; x++) {
          if (inside && x == part.left - plan.left) x += part.width;
          if (x < plan.window_width) row[x * target.stride_pixel] = v;
        }
      }
    }
  }
  if (empty) return;
  Target<T> inner = target;
  inner.data += (part.top - plan.top) * target.stride_row + (part.left - plan.left) * target.stride_pixel;

  const bool avx2 = has_avx2() && plan.kernel != Kernel::kPortable;
  const bool same_size = plan.height == s.height && plan.width == s.width && box.x0 == 0 && box.y0 == 0 &&
                         box.x1 == static_cast<float>(s.width) && box.y1 == static_cast<float>(s.height);
  if (plan.premultiply && plan.filter != Filter::kNearest && !same_size) {
    std::vector<uint8_t> pixels = packed_copy(s);
    multiply_alpha(pixels, channels);
    const auto sink = make_sink(inner, table, channels, channels);
    run_rows({pixels.data(), s.height, s.width, s.width * channels, channels}, plan, box, part, avx2,
             DivideAlpha<decltype(sink)>{sink, channels});
    return;
  }
  const bool forward = s.stride_row >= 0;
  const bool packed = s.stride_pixel == channels || (s.stride_pixel == 4 && channels == 3);
  if (forward && (channels == 1 || s.stride_channel == 1) && packed) {
    const int pitch = static_cast<int>(s.stride_pixel);
    run_rows({s.data, s.height, s.width, s.stride_row, pitch}, plan, box, part, avx2,
             make_sink(inner, table, channels, pitch));
  } else if (forward && s.stride_pixel == 1) {
    for (int c = 0; c < channels; c++) {
      Target<T> plane = inner;
      plane.data += c * inner.stride_channel;
      run_rows({s.data + c * s.stride_channel, s.height, s.width, s.stride_row, 1}, plan, box, part, avx2,
               make_sink(plane, table ? table + 256 * c : nullptr, 1, 1));
    }
  } else {
    const std::vector<uint8_t> pixels = packed_copy(s);
    run_rows({pixels.data(), s.height, s.width, s.width * channels, channels}, plan, box, part, avx2,
             make_sink(inner, table, channels, channels));
  }
}

}  // namespace

void resize(const Source& source, const Plan& plan, const Target<uint8_t>& target) {
  run(source, plan, nullptr, target);
}

void resize_to_float(const Source& source, const Plan& plan, const float* table, const Target<float>& target) {
  check(table != nullptr, "no table given");
  run(source, plan, table, target);
}

}  // namespace tv::image
