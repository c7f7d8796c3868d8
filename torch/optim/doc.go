// Package optim is torch.optim: SGD, Adam and AdamW with parameter groups, clipping of gradients, learning
// rate schedules and layer-wise decay.
//
// One step is one call into libtorch for all parameters, in the order of operations of Python's
// torch.optim with foreach=False, which is its default on the CPU: the parameters get Python's bits. (On
// CUDA Python's default is foreach=True, whose last bits differ.)
//
// A training loop calls the module in mode torch.Grad, takes a loss, and then
//
//	err = torch.Backward(ctx, loss, torch.BackwardOptions{}) // adds to the gradients
//	norm, err := optim.ClipGradNorm(ctx, params, 1)          // where wanted
//	err = optimizer.Step(ctx)                                // changes the parameters
//	err = optimizer.ZeroGrad()                               // drops the gradients
//
// To accumulate gradients call Backward several times before Step. The parameters are those of
// [jit.Module.NamedParameters]: they share the module's memory, so a step changes the module, and
// jit.Module.Save writes what was learned. Their order is Python's; clipping sums in that order.
//
// An Optimizer keeps references to its parameters and owns its state; the caller closes it, and the
// parameters it was made of on their own. Its methods may be called from many goroutines and take turns,
// but a step changes memory that running forwards read: keep them apart.
package optim
