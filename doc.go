// Package torchvit holds no code: the module's packages are torch (tensors and
// operators), torch/jit (TorchScript), transforms (images to tensors), vit,
// seg and det (the tasks), and the command cmd/torchvit. README.md shows how
// they fit together.
package torchvit
