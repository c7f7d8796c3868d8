// Package ordered works ahead on several goroutines and gives the answers in order.
package ordered

import (
	"context"
	"sync"
)

// Each runs work on the items, up to workers of them at once, and add on each item's answer, in order, on the
// caller's goroutine. Work begins only where few answers wait to be added: twice the workers. The first error of
// work or add, in the items' order, ends it, and so does ctx, with its cause. No work is left behind.
func Each[Item, Answer any](ctx context.Context, items []Item, workers int, work func(context.Context, Item) (Answer, error), add func(Item, Answer) error) error {
	type result struct {
		answer Answer
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	results := make([]chan result, len(items))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	workers = max(1, min(workers, len(items)))
	slots, next := make(chan struct{}, 2*workers), make(chan int)
	group.Go(func() {
		defer close(next)
		for i := range items {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	for range workers {
		group.Go(func() {
			for i := range next {
				answer, err := work(ctx, items[i])
				results[i] <- result{answer, err}
			}
		})
	}
	for i, item := range items {
		var r result
		select {
		case r = <-results[i]:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		<-slots
		if r.err == nil {
			r.err = add(item, r.answer)
		}
		if r.err != nil {
			return r.err
		}
	}
	return nil
}
