package loader

import (
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

// Batch is images and what is true of them. The caller closes it; all tensors are on the CPU.
type Batch struct {
	// Step is the batch's number in its epoch, from 0. Where images have different sizes a step can come in
	// several batches.
	Step int
	// Images is (B, C, H, W) float32, normalised as the Spec says; nil with Options.List.
	Images *torch.Tensor
	// List is B images (C, H, W) float32, with Options.List.
	List []*torch.Tensor
	// Classes is (B) int64; nil where the targets have none.
	Classes *torch.Tensor
	// Masks is (B, H, W) int64, Ignored where a pixel does not count and in padding; nil likewise.
	Masks *torch.Tensor
	// Boxes has for each image (n, 4) float32, xyxy in pixels of the image as it is here, Labels (n) int64; n may
	// be 0. nil likewise.
	Boxes, Labels []*torch.Tensor
	// InstanceMasks has for each image (n, H, W) uint8 of 0 and 1, for its boxes; nil likewise.
	InstanceMasks []*torch.Tensor
	// Index is each image's place in the set.
	Index []int
	// Views tell which part of its photo each image shows, and how.
	Views []transforms.View
}

// Len is the number of images.
func (b *Batch) Len() int { return len(b.Index) }

// Close closes all tensors. Closing again, or a nil batch, has no effect. It always returns nil.
func (b *Batch) Close() error {
	if b == nil {
		return nil
	}
	torch.CloseAll(b.Images, b.List, b.Classes, b.Masks, b.Boxes, b.Labels, b.InstanceMasks)
	return nil
}
