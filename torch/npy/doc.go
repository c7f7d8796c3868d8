// Package npy reads and writes NumPy's .npy and .npz files, bit for bit.
//
// It is the way in which tensors go to and from Python through files: inputs
// of torchvit run, the reference inside a model file, goldens of tests. An
// [Array] is a dtype, a shape and little-endian bytes; it knows nothing of
// libtorch, and package torch turns it into a tensor and back.
//
// The types are those that both NumPy and a ViT have: b1 (bool), u1, i1, i2,
// i4, i8, f2, f4 and f8. NumPy has no bfloat16: widen it to float32 before
// writing. Complex, structured, string and object arrays are refused.
//
// The one trap: [Array].Fortran says that Data is in column-major order, as
// NumPy stores it; [Array.RowMajor] reorders it.
//
// The files may come from anywhere. Headers are parsed as data, object arrays
// (which are pickles) are refused, and memory is allocated as data arrives, so
// that a header that claims terabytes costs nothing.
package npy
