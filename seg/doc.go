// Package seg segments photos with Vision Transformers: a class for every pixel.
//
// [Load] takes a file that segments by itself, [CustomSegmentationModel] joins any ViT and any head. Their
// Segment gives class maps; SegmentWith has options for probabilities, photos larger than the model's input
// ([Slide]) and test-time augmentation. All of it gives the bits of Python's own postprocessing: that of
// transformers, mmsegmentation or Segmenter.
//
// A [ClassMap] is the answer, at the photo's own size. It is written as an indexed PNG, whose pixel values are
// the class ids and whose palette is only for the eye, cut into masks as COCO's ([ClassMap.Segments]), or drawn
// over the photo with a legend by [Overlay]. It holds uint8, so that there are at most 256 classes, of which
// 255 is, by custom, the one to ignore.
//
// Memory goes with the photo: the logits of 150 classes for a photo of 12 million pixels are 7 GB, as in
// Python.
//
// Colours are a [Palette]: the one in the model file, a data set's ([PaletteByName]), or as many distinct ones
// as there are classes ([DistinctPalette]). Counting over a data set is [Metrics]'s.
package seg
