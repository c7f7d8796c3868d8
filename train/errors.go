package train

import "errors"

// Errors to test for with errors.Is.
var (
	// ErrOptions: an option that makes no sense, or not for this model.
	ErrOptions = errors.New("wrong option")
	// ErrFrozen: the file has no parameters that could be learned.
	ErrFrozen = errors.New("nothing to train")
	// ErrHead: the file's head cannot get other outputs.
	ErrHead = errors.New("head cannot be replaced")
	// ErrClasses: the data set's classes are not the model's.
	ErrClasses = errors.New("other classes")
	// ErrRun: the folder of the run holds another run, or none to go on with.
	ErrRun = errors.New("run folder")
	// ErrDiverged: the loss, its gradients or the weights are no longer finite numbers.
	ErrDiverged = errors.New("training diverged")
	// ErrStopped: the context ended; the checkpoint is there to go on from.
	ErrStopped = errors.New("training stopped")
)
