package transforms

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

// resizing is how one image becomes another of a given size.
type resizing struct {
	filter    Interpolation
	backend   Backend
	antialias bool
	order     PassOrder
}

func (r resizing) validate() error {
	switch r.backend {
	case PIL, "":
		_, err := r.filter.pillow()
		return err
	case Torch:
		_, err := r.operator()
		return err
	}
	return fmt.Errorf("%w: backend: got %q, want pil or torch", ErrSpec, r.backend)
}

// operator names torch's kernel.
func (r resizing) operator() (string, error) {
	switch {
	case r.filter == Nearest:
		return "aten::upsample_nearest2d", nil
	case r.filter == NearestExact:
		return "aten::_upsample_nearest_exact2d", nil
	case (r.filter == Bilinear || r.filter == "") && r.antialias:
		return "aten::_upsample_bilinear2d_aa", nil
	case r.filter == Bilinear || r.filter == "":
		return "aten::upsample_bilinear2d", nil
	case r.filter == Bicubic && r.antialias:
		return "aten::_upsample_bicubic2d_aa", nil
	case r.filter == Bicubic:
		return "aten::upsample_bicubic2d", nil
	case r.filter == Lanczos && r.antialias:
		return "aten::_upsample_lanczos2d_aa", nil
	case r.filter == Lanczos:
		return "", fmt.Errorf("%w: interpolation: got lanczos without antialias, want antialias", ErrSpec)
	}
	return "", fmt.Errorf("%w: interpolation: got %q with backend torch, want nearest, nearest-exact, bilinear, bicubic or lanczos", ErrSpec, r.filter)
}

func (r resizing) apply(ctx context.Context, m *Image, size Size) (*Image, error) {
	if size.Height == m.Height() && size.Width == m.Width() {
		return m.alias()
	}
	if r.backend == Torch {
		return r.torch(ctx, m, size)
	}
	if m.dtype != torch.Uint8 {
		return nil, fmt.Errorf("resize: %w: got an image of %s, want uint8: Pillow's arithmetic belongs before ToTensor, or take Backend Torch", torch.ErrDType, m.dtype)
	}
	filter, err := r.filter.pillow()
	if err != nil {
		return nil, err
	}
	plan := cgo.ImagePlan{
		Height: int64(size.Height), Width: int64(size.Width),
		WindowHeight: int64(size.Height), WindowWidth: int64(size.Width),
		Filter: filter, PassOrder: int32(r.order),
	}
	return m.planned(ctx, &plan)
}

// planned runs Pillow's kernels and gives an interleaved image.
func (m *Image) planned(ctx context.Context, plan *cgo.ImagePlan) (*Image, error) {
	if err := takeLight(ctx); err != nil {
		return nil, err
	}
	defer leaveLight()
	c := m.layout.Channels
	return newPixels(int(plan.WindowHeight), int(plan.WindowWidth), int(c), func(dst []byte) error {
		return m.bytes(func(src []byte) error {
			stride := cgo.ImageStride{Row: plan.WindowWidth * c, Pixel: c, Channel: 1}
			return torch.WrapStatus("resize", cgo.ImageResize(src, &m.layout, plan, dst, stride))
		})
	})
}

// nativeUint8 says whether torchvision resizes bilinearly in bytes, which it does where torch's kernels
// for that are fast.
var nativeUint8 = sync.OnceValues(func() (bool, error) {
	info, err := torch.RuntimeInfo()
	return info.CPUCapability == "AVX2" || info.CPUCapability == "AVX512" || runtime.GOARCH == "arm64", err
})

// torch does what torchvision.transforms.v2.functional.resize_image does with a tensor.
func (r resizing) torch(ctx context.Context, m *Image, size Size) (*Image, error) {
	operator, err := r.operator()
	if err != nil {
		return nil, err
	}
	var scope torch.Scope
	defer scope.Close()
	own := torch.Own(&scope)
	t, err := own(m.Tensor())
	if err != nil {
		return nil, err
	}
	l := m.layout
	numel := l.Channels * l.Height * l.Width
	if l.StrideRow*l.Height != numel && l.StrideRow*l.Height*l.Channels != numel { // a view with gaps
		if t, err = own(t.Contiguous()); err != nil {
			return nil, err
		}
		l = planar(m.Height(), m.Width(), m.Channels())
	}
	// The stride of the batch is numel, which makes an interleaved image unambiguously channels_last.
	if t, err = own(torch.CallTensor(ctx, "aten::as_strided", t, []int64{1, l.Channels, l.Height, l.Width},
		[]int64{numel, l.StrideChannel, l.StrideRow, l.StridePixel}, nil)); err != nil {
		return nil, err
	}
	bilinear := r.filter == Bilinear || r.filter == ""
	cast := false
	if m.dtype == torch.Uint8 && bilinear {
		native, err := nativeUint8()
		if err != nil {
			return nil, err
		}
		if cast = !native; cast {
			if t, err = own(t.CastTo(torch.Float32)); err != nil {
				return nil, err
			}
		}
	}
	args := []any{t, []int64{int64(size.Height), int64(size.Width)}, false, nil, nil}
	if r.filter == Nearest || r.filter == NearestExact {
		args = []any{t, []int64{int64(size.Height), int64(size.Width)}, nil, nil}
	}
	// A small image can become a large one, and torch's float kernels depend on the number of threads.
	v, err := torch.CallWith(ctx, torch.CallOptions{OnLane: true}, operator, args...)
	if err != nil {
		return nil, err
	}
	scope.Track(v)
	t, ok := v.(*torch.Tensor)
	if !ok {
		return nil, fmt.Errorf("%s: %w: got %T, want one tensor", operator, torch.ErrValue, v)
	}
	if cast {
		if t, err = own(torch.CallTensor(ctx, "aten::round", t)); err != nil {
			return nil, err
		}
		if t, err = own(t.CastTo(torch.Uint8)); err != nil {
			return nil, err
		}
	}
	if t, err = own(torch.CallTensor(ctx, "aten::select.int", t, 0, 0)); err != nil {
		return nil, err
	}
	return FromTensor(t)
}

// alias is a second owner of the same pixels.
func (m *Image) alias() (*Image, error) {
	t, err := m.pixels.Alias()
	if err != nil {
		return nil, err
	}
	out := *m
	out.pixels = t
	return &out, nil
}
