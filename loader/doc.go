// Package loader turns a data set into batches of tensors for training and evaluation: torch.utils.data.DataLoader
// with torchvision.transforms.v2, on goroutines.
//
// A [Loader], made of a *dataset.Set and [Options], decodes, augments, resizes and normalises images in worker
// goroutines, a bounded number of batches ahead, and writes each straight into its place in the batch's memory,
// which is libtorch's. Masks and boxes move along with the images: see transforms.View.
//
//	for batch, err := range l.Batches(ctx, epoch, 0) {
//		if err != nil {
//			return err
//		}
//		// train on batch.Images, batch.Classes
//		batch.Close()
//	}
//
// What a batch holds is a function of Options.Seed, the epoch and the images' places in the set, whatever the number
// of workers; so a run that was stopped goes on at any batch with the same bytes. Batches belong to the caller, who
// closes them; the loader itself holds memory only where Options.Cache is set, and Close gives that back.
//
// The trap: images of different sizes cannot share a tensor. Where neither the augmentation nor the model's
// preprocess gives all one size, a step comes in several batches of one size each, which have the same Batch.Step;
// or, with Options.List, as a list of images, which torchvision's detectors take.
package loader
