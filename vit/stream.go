package vit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/torchvit/torchvit/internal/ordered"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

// StreamOptions say how many photos Stream works on at once. The zero value takes them one by one.
type StreamOptions struct {
	// Batch is how many photos one call of work gets; 0 is 1.
	Batch int
	// Calls is how many calls of work are under way at once; 0 is one more than there are lanes
	// (torch.Config.Lanes), so that photos are decoded and resized while every lane runs a model.
	Calls int
}

var errStopped = errors.New("stopped")

// Stream answers photo after photo, in their order, and has the next ones prepared while the model runs. work gets
// Batch photos at a time and gives an answer for each:
//
//	for classes, err := range vit.Stream(ctx, photos, vit.StreamOptions{Batch: 8},
//		func(ctx context.Context, photos ...transforms.Source) ([][]vit.Class, error) {
//			return model.Classify(ctx, 5, photos...)
//		}) {
//
// The first error ends it, after the answers of the photos before that call. photos is read on another goroutine, at
// most twice Calls batches and one more ahead; where it waits for something, as for a camera, it must end with ctx, since
// a loop that is left waits for it. An answer is the caller's, to close where it has a Close or tensors; those that a loop
// which is left does not get are closed.
func Stream[Answer any](ctx context.Context, photos iter.Seq[transforms.Source], o StreamOptions, work func(ctx context.Context, photos ...transforms.Source) ([]Answer, error)) iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		var none Answer
		if o.Batch < 0 || o.Calls < 0 {
			yield(none, fmt.Errorf("stream: %w: got Batch %d and Calls %d, want 0 or more", torch.ErrInvalidArgument, o.Batch, o.Calls))
			return
		}
		calls := o.Calls
		if calls == 0 {
			info, err := torch.RuntimeInfo()
			if err != nil {
				yield(none, err)
				return
			}
			calls = len(info.LaneThreads) + 1
		}
		drop := func(answers []Answer) {
			for _, answer := range answers {
				switch a := any(answer).(type) {
				case io.Closer:
					a.Close()
				case interface{ Close() }:
					a.Close()
				default:
					torch.CloseAll(a)
				}
			}
		}
		err := ordered.Each(ctx, chunks(photos, max(1, o.Batch)), calls,
			func(ctx context.Context, photos []transforms.Source) ([]Answer, error) {
				answers, err := work(ctx, photos...)
				if err == nil && len(answers) != len(photos) {
					drop(answers)
					err = fmt.Errorf("stream: %w: got %d answers for %d photos", ErrOutput, len(answers), len(photos))
				}
				return answers, err
			},
			func(_ []transforms.Source, answers []Answer) error {
				for i, answer := range answers {
					if !yield(answer, nil) {
						drop(answers[i+1:])
						return errStopped
					}
				}
				return nil
			}, drop)
		if err != nil && !errors.Is(err, errStopped) {
			yield(none, err)
		}
	}
}

// chunks gives n items at a time, each in a slice of its own.
func chunks[T any](items iter.Seq[T], n int) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		var chunk []T
		for item := range items {
			if chunk = append(chunk, item); len(chunk) == n {
				if !yield(chunk) {
					return
				}
				chunk = nil
			}
		}
		if len(chunk) > 0 {
			yield(chunk)
		}
	}
}
