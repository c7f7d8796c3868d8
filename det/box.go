package det

import "github.com/torchvit/torchvit/coco"

// Box is a rectangle, xyxy, in pixels: X1 and Y1 are the left and top edge, X2 and
// Y2 the right and bottom one.
type Box struct {
	X1, Y1, X2, Y2 float32
}

// Detection is one object that a detector found.
type Detection struct {
	Box     Box
	Label   string  // the class's name
	LabelID int     // the class's id in the model
	Score   float32 // in [0, 1]
	// Mask is the object's pixels at the photo's size; nil where the model gives boxes only.
	Mask *coco.RLE
}

// BoxFromXYWH makes a box of its left and top edge, width and height, as COCO's
// files hold it: torchvision.ops.box_convert(in_fmt="xywh").
func BoxFromXYWH(x, y, w, h float32) Box { return Box{x, y, x + w, y + h} }

// BoxFromCXCYWH makes a box of its centre, width and height, as DETR and YOLO give
// it: torchvision.ops.box_convert(in_fmt="cxcywh").
func BoxFromCXCYWH(cx, cy, w, h float32) Box {
	// The conversions keep products from being fused with sums, for torch's bits.
	hw, hh := float32(0.5*w), float32(0.5*h)
	return Box{cx - hw, cy - hh, cx + hw, cy + hh}
}

// XYWH gives the left and top edge, width and height.
func (b Box) XYWH() (x, y, w, h float32) { return b.X1, b.Y1, b.X2 - b.X1, b.Y2 - b.Y1 }

// CXCYWH gives the centre, width and height.
func (b Box) CXCYWH() (cx, cy, w, h float32) {
	return (b.X1 + b.X2) / 2, (b.Y1 + b.Y2) / 2, b.X2 - b.X1, b.Y2 - b.Y1
}

// Width is X2 - X1, or 0 for an empty box.
func (b Box) Width() float32 { return max(0, b.X2-b.X1) }

// Height is Y2 - Y1, or 0 for an empty box.
func (b Box) Height() float32 { return max(0, b.Y2-b.Y1) }

// Area is the box's area in square pixels, torchvision.ops.box_area, but 0 for a
// box whose edges are the wrong way round.
func (b Box) Area() float32 { return float32(b.Width() * b.Height()) }

// Empty says whether the box holds no area; one with a NaN does not.
func (b Box) Empty() bool { return !(b.X1 < b.X2 && b.Y1 < b.Y2) }

// Intersect gives the box that both cover. It may be empty.
func (b Box) Intersect(o Box) Box {
	return Box{max(b.X1, o.X1), max(b.Y1, o.Y1), min(b.X2, o.X2), min(b.Y2, o.Y2)}
}

// IoU is the area that both boxes cover over the area that either covers, in [0, 1]:
// torchvision.ops.box_iou, with its float32 arithmetic, but 0, not NaN, for two
// empty boxes.
func (b Box) IoU(o Box) float32 {
	inter := b.Intersect(o).Area()
	union := b.Area() + o.Area() - inter
	if union == 0 {
		return 0
	}
	return inter / union
}

// Clip moves edges that lie outside a picture of that width and height to its
// border: torchvision.ops.clip_boxes_to_image.
func (b Box) Clip(width, height int) Box {
	w, h := float32(width), float32(height)
	return Box{
		min(max(b.X1, 0), w), min(max(b.Y1, 0), h),
		min(max(b.X2, 0), w), min(max(b.Y2, 0), h),
	}
}

// Scale multiplies the coordinates, to bring a box to a picture of another size.
func (b Box) Scale(sx, sy float32) Box { return Box{b.X1 * sx, b.Y1 * sy, b.X2 * sx, b.Y2 * sy} }
