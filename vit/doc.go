// Package vit runs Vision Transformers: logits, tokens, attention, and answers about photos.
//
// A model file is a runnable module with a description of itself, [Metadata]: what it expects, how to
// prepare a photo, what its answer means. Files that scripts/export.py made hold it inside; for others
// it can be given as [Options.Metadata] or as a JSON file beside the model (MODEL.json).
//
// The package speaks to a [Runtime], not to TorchScript, so that other kinds of compiled models can
// come in beside torch/jit. Tensors that a method gives are the caller's to close.
//
// [FeatureExtractor] gives the maps of chosen blocks for a decoder of one's own, [VisionTransformer.AttendWith]
// what a token looks at.
//
// Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021); Caron et al., "Emerging
// Properties in Self-Supervised Vision Transformers" (2021) for the attention maps.
package vit
