// Package transforms turns image files into the tensors that a model sees, with torchvision.transforms'
// names and Python's own bits.
//
// [Decode] gives what Pillow's Image.open(f).convert("RGB") gives, [Resize] has Pillow's 8-bit
// arithmetic or torch's kernels, and [ToTensor] and [Normalize] round as torchvision's do. [Compose]
// chains them step by step. A [Pipeline], made from the "preprocess" section of a model file ([Spec]),
// does all of it at once: it decodes into libtorch's memory and writes the resized, cropped and
// normalised pixels straight into their place in the batch.
//
// For training, [RandomResizedCrop], [ScaleJitter], [ColorJitter] and others draw their parameters from a seeded
// generator; the [View] and [ColorParams] that they give change images, masks and boxes as
// torchvision.transforms.v2 does. Package loader makes batches with them.
//
// The trap: Go's own JPEG decoder differs from Python's by up to 90 levels of 255. It is used only where
// [GoDecoder] is asked for; without torchvision's image library, decoding a JPEG or WebP file is the
// error [ErrNoDecoder].
//
// Images and tensors that functions give belong to the caller, who closes them.
package transforms
