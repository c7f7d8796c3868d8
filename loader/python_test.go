package loader

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

// TestPython compares an epoch, from the files on, with Pillow, pycocotools and torchvision.transforms.v2 of the same
// parameters: images, masks, boxes, labels and instance masks, in every bit.
func TestPython(t *testing.T) {
	type object struct {
		Label        int64      `json:"label"`
		Box          [4]float32 `json:"box"`
		Segmentation any        `json:"segmentation"`
	}
	type item struct {
		Path    string         `json:"path"`
		Objects []object       `json:"objects"`
		Size    []int          `json:"size"`
		Crop    []int          `json:"crop"`
		Flip    bool           `json:"flip"`
		Color   map[string]any `json:"color"`
	}
	set := scenes(t)
	l := newLoader(t, set, augmented())
	var items []item
	var batches []content
	for b, err := range l.Batches(t.Context(), 2, 0) {
		require.NoError(t, err)
		batches = append(batches, contentOf(t, b))
		b.Close()
		for k, i := range b.Index {
			img := set.Images[i]
			v, c, err := l.view(2, i, transforms.Size{Height: img.Height, Width: img.Width})
			require.NoError(t, err)
			require.Equal(t, v, b.Views[k])
			it := item{
				Path: img.Path, Objects: []object{}, Size: []int{v.Resized.Height, v.Resized.Width},
				Crop: []int{v.Crop.Top, v.Crop.Left, v.Crop.Height, v.Crop.Width}, Flip: v.Flip,
				Color: map[string]any{
					"fn_idx": c.Order[:], "brightness_factor": c.Brightness, "contrast_factor": c.Contrast,
					"saturation_factor": c.Saturation, "hue_factor": c.Hue,
				},
			}
			for _, o := range img.Objects {
				var outline any = o.Mask // run lengths
				if o.Mask == nil {
					outline = o.Polygons
				}
				it.Objects = append(it.Objects, object{
					set.IDs[o.Class],
					[4]float32{float32(o.Box.X1), float32(o.Box.Y1), float32(o.Box.X2), float32(o.Box.Y2)},
					outline,
				})
			}
			items = append(items, it)
		}
	}
	dir := t.TempDir()
	request, answer := filepath.Join(dir, "request.json"), filepath.Join(dir, "answer.npz")
	text, err := json.Marshal(items)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(request, text, 0o644))
	testmain.RunPython(t, filepath.Join("loader", "testdata", "reference.py"), request, answer)
	want, err := torch.LoadNpz(answer)
	require.NoError(t, err)
	defer func() {
		for _, x := range want {
			x.Close()
		}
	}()

	at, floats, objects := 0, 0, 0
	for _, c := range batches {
		n := len(c.Images) / len(c.Index)
		boxes, labels, instances := c.Boxes, c.Labels, c.Instances
		for k := range c.Index {
			get := func(name string) *torch.Tensor { return want[name+"."+strconv.Itoa(at)] }
			require.Equal(t, values[float32](t, get("images")), c.Images[k*n:(k+1)*n], "image %d", at)
			require.Equal(t, values[int64](t, get("masks")), c.Masks[k*n/3:(k+1)*n/3], "mask %d", at)
			m := int(c.Objects[k])
			require.Equal(t, []int64{int64(m), 4}, get("boxes").Shape())
			if m == 0 {
				at++
				continue
			}
			require.Equal(t, values[float32](t, get("boxes")), boxes[:4*m], "boxes %d", at)
			require.Equal(t, values[int64](t, get("labels")), labels[:m])
			require.Equal(t, values[uint8](t, get("instances")), instances[:m*n/3])
			boxes, labels, instances = boxes[4*m:], labels[m:], instances[m*n/3:]
			at, floats, objects = at+1, floats+n, objects+m
		}
	}
	require.Greater(t, objects, len(items)/2)
	t.Logf("%d images, %d floats and %d objects compared, 0 differ", at, floats, objects)
}
