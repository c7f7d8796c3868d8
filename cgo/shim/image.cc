// The C functions over resize.h.
#include <algorithm>

#include "guard.h"
#include "resize.h"

namespace {

using tv::image::Source;

Source source_of(const uint8_t* data, const tv_image_layout& l) {
  return {data, l.height, l.width, l.channels, l.stride_row, l.stride_pixel, l.stride_channel};
}

tv::image::Plan plan_of(const tv_image_plan& p) {
  tv::image::Plan plan{};
  plan.height = p.height;
  plan.width = p.width;
  plan.top = p.top;
  plan.left = p.left;
  plan.window_height = p.window_height;
  plan.window_width = p.window_width;
  std::copy(p.box, p.box + 4, plan.box.begin());
  std::copy(p.fill, p.fill + 4, plan.fill.begin());
  plan.filter = static_cast<tv::image::Filter>(p.filter);
  plan.pass_order = static_cast<tv::image::PassOrder>(p.pass_order);
  plan.kernel = static_cast<tv::image::Kernel>(p.kernel);
  plan.premultiply = p.premultiply != 0;
  return plan;
}

}  // namespace

extern "C" {

tv_status* tv_image_resize(const uint8_t* src, const tv_image_layout* layout, const tv_image_plan* plan, uint8_t* dst,
                           int64_t stride_row, int64_t stride_pixel, int64_t stride_channel) {
  return tv::guard([&] {
    tv::image::resize(source_of(src, *layout), plan_of(*plan), {dst, stride_row, stride_pixel, stride_channel});
  });
}

tv_status* tv_image_to_float(const uint8_t* src, const tv_image_layout* layout, const tv_image_plan* plan,
                             const float* table, float* dst, int64_t stride_row, int64_t stride_pixel,
                             int64_t stride_channel) {
  return tv::guard([&] {
    tv::image::resize_to_float(source_of(src, *layout), plan_of(*plan), table,
                               {dst, stride_row, stride_pixel, stride_channel});
  });
}

}  // extern "C"
