// Image resize with Pillow's exact 8-bit arithmetic, and the step from bytes
// to normalised float planes. Plain C++: nothing here knows about torch.
#pragma once

#include <array>
#include <cstdint>

namespace tv::image {

// Pillow's own filter numbers.
enum class Filter : int32_t {
  kNearest = 0,
  kLanczos = 1,
  kBilinear = 2,
  kBicubic = 3,
  kBox = 4,
  kHamming = 5,
};

// Which pass runs first decides the bits, because the value between the passes
// is rounded to 8 bits.
enum class PassOrder : int32_t {
  kPillow13 = 0,  // vertical first when the height shrinks more than twice as much as the width
  kPillow12 = 1,  // vertical first only when the image is more than 100 times as high as wide
};

// kAuto takes AVX2 where the processor has it; kPortable does without. The bits are the same.
enum class Kernel : int32_t { kAuto = 0, kPortable = 1 };

inline constexpr int kMaxChannels = 4;

// Read-only pixels: value(y, x, c) = data[y*stride_row + x*stride_pixel + c*stride_channel].
struct Source {
  const uint8_t* data;
  int64_t height, width, channels;
  int64_t stride_row, stride_pixel, stride_channel;
};

struct Plan {
  // The whole resized image, of which the window below is produced.
  int64_t height, width;
  // The window's corner in the resized image (may be negative) and its size.
  // What lies outside the resized image is filled with `fill`.
  int64_t top, left, window_height, window_width;
  // The part of the source that is resized (x0, y0, x1, y1); all zeros: all of it.
  std::array<float, 4> box;
  std::array<uint8_t, kMaxChannels> fill;
  Filter filter;
  PassOrder pass_order;
  Kernel kernel;
  // The last of 2 or 4 channels is alpha: multiply before and divide after, as
  // Pillow does for LA and RGBA (not for kNearest, and not when the size stays).
  bool premultiply;
};

template <typename T>
struct Target {
  T* data;
  int64_t stride_row, stride_pixel, stride_channel;
};

// resize writes the window of the resized source to target, `source.channels` deep.
// Throws std::invalid_argument and std::bad_alloc.
void resize(const Source& source, const Plan& plan, const Target<uint8_t>& target);

// resize_to_float is resize followed by table[c * 256 + value] for each channel c.
void resize_to_float(const Source& source, const Plan& plan, const float* table, const Target<float>& target);

}  // namespace tv::image
