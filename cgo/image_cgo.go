//go:build cgo

package cgo

/*
#include "calls.h"

#cgo noescape tv_image_resize
#cgo nocallback tv_image_resize
#cgo noescape tv_image_to_float
#cgo nocallback tv_image_to_float
*/
import "C"

import "unsafe"

// The Go mirrors are as large as the C structs; a difference does not compile.
var (
	_ [unsafe.Sizeof(C.tv_image_layout{}) - unsafe.Sizeof(ImageLayout{})]byte
	_ [unsafe.Sizeof(ImageLayout{}) - unsafe.Sizeof(C.tv_image_layout{})]byte
	_ [unsafe.Sizeof(C.tv_image_plan{}) - unsafe.Sizeof(ImagePlan{})]byte
	_ [unsafe.Sizeof(ImagePlan{}) - unsafe.Sizeof(C.tv_image_plan{})]byte
)

// ImageResize wraps tv_image_resize. Every place that it reads or writes is checked to lie inside src
// and dst first.
func ImageResize(src []uint8, layout *ImageLayout, plan *ImagePlan, dst []uint8, stride ImageStride) error {
	if err := checkImage(len(src), layout, plan, len(dst), stride); err != nil {
		return err
	}
	return check(C.tv_image_resize(
		(*C.uint8_t)(unsafe.SliceData(src)), (*C.tv_image_layout)(unsafe.Pointer(layout)),
		(*C.tv_image_plan)(unsafe.Pointer(plan)), (*C.uint8_t)(unsafe.SliceData(dst)),
		C.int64_t(stride.Row), C.int64_t(stride.Pixel), C.int64_t(stride.Channel)))
}

// ImageToFloat wraps tv_image_to_float. table holds 256 values for each channel.
func ImageToFloat(src []uint8, layout *ImageLayout, plan *ImagePlan, table, dst []float32, stride ImageStride) error {
	if err := checkImage(len(src), layout, plan, len(dst), stride); err != nil {
		return err
	}
	if err := checkTable(len(table), layout); err != nil {
		return err
	}
	return check(C.tv_image_to_float(
		(*C.uint8_t)(unsafe.SliceData(src)), (*C.tv_image_layout)(unsafe.Pointer(layout)),
		(*C.tv_image_plan)(unsafe.Pointer(plan)), (*C.float)(unsafe.SliceData(table)),
		(*C.float)(unsafe.SliceData(dst)),
		C.int64_t(stride.Row), C.int64_t(stride.Pixel), C.int64_t(stride.Channel)))
}
