// Package seg segments photos with Vision Transformers: a class for every pixel.
//
// A [ClassMap] is the answer, at the photo's own size. It is written as an indexed
// PNG, whose pixel values are the class ids and whose palette is only for the eye,
// or drawn over the photo with a legend by [Overlay].
//
// Colours are a [Palette]: the one in the model file, Pascal VOC's ([VOCPalette]),
// or as many distinct ones as there are classes ([DistinctPalette]).
//
// A class map holds uint8, so that there are at most 256 classes, of which 255 is,
// by custom, the one to ignore.
package seg
