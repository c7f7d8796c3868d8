// Package train fine-tunes model files: TorchScript that describes itself, as scripts/export.py writes it, for
// classification, segmentation and detection.
//
// [Run] does all of it, as `torchvit train` does: batches of a data set, a task's loss, an optimizer with groups
// and a schedule, a measurement after each epoch, checkpoints from which a run goes on bit for bit, curves, and
// at the end a model file that every other part of this module takes.
//
// Its pieces serve a loop of one's own: a [Model] is a file in training, a [Task] knows the loss of a batch and
// how answers are measured, [Model.Save] writes a model file with metadata and a fresh reference. Batches come
// from package loader, optimizers and schedules from torch/optim, losses from torch/loss.
//
// A model's parameters are learned in float32; [LoadOptions.Precision] lets its layers compute in bfloat16, by
// autocast. Nothing here is global: two models train side by side, apart from the generator of random numbers,
// which is the process's, as in Python.
package train
