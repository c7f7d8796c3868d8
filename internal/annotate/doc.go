// Package annotate draws what vit, seg and det show a person: captions, label
// plates, frames, colour maps, legends and sheets of pictures, on top of photos.
//
// Everything works on a fresh, opaque [*image.RGBA] whose origin is (0, 0) (see
// [Opaque]); the photo that the caller gave is never changed. Sizes of text and
// lines follow the picture's size through [ScaleFor], so that a label can be read
// at 100x80 as well as at 8000x6000. Colours are mixed by tables ([Tint]) and rows are
// shared out among the processors ([Rows]).
//
// [EncodePNG] is a faster image/png, and [WriteImage] writes a file whole or not at all.
package annotate
