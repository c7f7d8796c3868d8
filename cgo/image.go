package cgo

import (
	"fmt"
	"math/bits"
	"structs"
)

// ImageLayout is tv_image_layout: where the bytes of an image lie.
type ImageLayout struct {
	_                                     structs.HostLayout
	Height, Width, Channels               int64
	StrideRow, StridePixel, StrideChannel int64
}

// ImagePlan is tv_image_plan: to which size an image is resized, how, and which window is kept.
type ImagePlan struct {
	_                                    structs.HostLayout
	Height, Width                        int64
	Top, Left, WindowHeight, WindowWidth int64
	// Box is the part of the source that is resized: x0, y0, x1, y1. All zeros mean the whole.
	Box  [4]float32
	Fill [4]uint8
	// Filter is Pillow's number.
	Filter int32
	// PassOrder is 0 for Pillow 13's, 1 for that of Pillow 12 and before.
	PassOrder int32
	// Kernel is 0 for the fastest, 1 for the portable one.
	Kernel int32
	// Premultiply is 1 where the last channel is alpha.
	Premultiply int32
}

// ImageStride says where a value goes: y*Row + x*Pixel + c*Channel, in values.
type ImageStride struct{ Row, Pixel, Channel int64 }

// maxImageSide keeps every product below from overflowing, and is what Pillow's float32 boxes can hold.
const maxImageSide = 1 << 24

func checkTable(n int, l *ImageLayout) error {
	if int64(n) < 256*l.Channels {
		return &Status{Code: InvalidArgument, Message: fmt.Sprintf("image: got a table of %d values, want %d", n, 256*l.Channels)}
	}
	return nil
}

// extent is the number of values that a strided image reaches over, or -1 where it overflows.
func extent(height, width, channels, row, pixel, channel int64) int64 {
	total := uint64(1)
	for _, v := range [][2]int64{{height - 1, row}, {width - 1, pixel}, {channels - 1, channel}} {
		hi, lo := bits.Mul64(uint64(v[0]), uint64(v[1]))
		sum, carry := bits.Add64(total, lo, 0)
		if hi != 0 || carry != 0 || sum > 1<<62 {
			return -1
		}
		total = sum
	}
	return int64(total)
}

// checkImage refuses what would read or write outside the two slices.
func checkImage(src int, l *ImageLayout, p *ImagePlan, dst int, s ImageStride) error {
	bad := func(format string, args ...any) error {
		return &Status{Code: InvalidArgument, Message: "image: " + fmt.Sprintf(format, args...)}
	}
	if !Loaded() {
		return &Status{Code: NotLoaded, Message: "image: libtorch is not loaded"}
	}
	for _, side := range []int64{l.Height, l.Width, p.Height, p.Width, p.WindowHeight, p.WindowWidth} {
		if side < 1 || side > maxImageSide {
			return bad("got a side of %d pixels, want 1 to %d", side, maxImageSide)
		}
	}
	if l.Channels < 1 || l.Channels > 4 {
		return bad("got %d channels, want 1 to 4", l.Channels)
	}
	if l.StrideRow < 0 || l.StridePixel < 0 || l.StrideChannel < 0 || s.Row < 0 || s.Pixel < 0 || s.Channel < 0 {
		return bad("got a negative stride, want strides of at least 0")
	}
	need := extent(l.Height, l.Width, l.Channels, l.StrideRow, l.StridePixel, l.StrideChannel)
	if need >= 0 && l.Channels == 3 && l.StrideChannel == 1 && l.StridePixel == 4 {
		need++
	}
	if need < 0 || need > int64(src) {
		return bad("got %d bytes of source, want %d for %d x %d x %d with strides %d, %d, %d",
			src, need, l.Height, l.Width, l.Channels, l.StrideRow, l.StridePixel, l.StrideChannel)
	}
	need = extent(p.WindowHeight, p.WindowWidth, l.Channels, s.Row, s.Pixel, s.Channel)
	if need < 0 || need > int64(dst) {
		return bad("got room for %d values, want %d for %d x %d x %d with strides %d, %d, %d",
			dst, need, p.WindowHeight, p.WindowWidth, l.Channels, s.Row, s.Pixel, s.Channel)
	}
	return nil
}
