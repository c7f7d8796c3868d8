// Package ordered works ahead on several goroutines and gives the answers in order.
package ordered

import (
	"context"
	"iter"
	"sync"
)

type result[Answer any] struct {
	answer Answer
	err    error
}

type job[Item, Answer any] struct {
	item Item
	done chan result[Answer]
}

// Each runs work on the items, up to workers of them at once, and add on each item's answer, in order, on the
// caller's goroutine; items are taken on another one. Work begins only where few answers wait to be added: twice the
// workers. The first error of work or add, in the items' order, ends it, and so does ctx, with its cause. No work is
// left behind, so items must end when ctx does; answers that add did not get go to drop, where that is not nil.
func Each[Item, Answer any](ctx context.Context, items iter.Seq[Item], workers int, work func(context.Context, Item) (Answer, error), add func(Item, Answer) error, drop func(Answer)) error {
	ctx, cancel := context.WithCancel(ctx)
	workers = max(1, workers)
	order, next := make(chan *job[Item, Answer], 2*workers), make(chan *job[Item, Answer])
	var group sync.WaitGroup
	stopped := false
	defer func() {
		cancel()
		group.Wait()
		for j := range order {
			j.drop(drop)
		}
	}()
	group.Go(func() {
		defer close(order)
		defer close(next)
		for item := range items {
			j := &job[Item, Answer]{item, make(chan result[Answer], 1)}
			if stopped = ctx.Err() != nil; stopped {
				return
			}
			select {
			case order <- j:
			case <-ctx.Done():
				stopped = true
				return
			}
			select {
			case next <- j:
			case <-ctx.Done():
				stopped = true
				return
			}
		}
	})
	for range workers {
		group.Go(func() {
			for j := range next {
				answer, err := work(ctx, j.item)
				j.done <- result[Answer]{answer, err}
			}
		})
	}
	for j := range order {
		select {
		case r := <-j.done:
			if r.err != nil && ctx.Err() != nil {
				return context.Cause(ctx) // and not what work made of it
			}
			if r.err == nil {
				r.err = add(j.item, r.answer)
			}
			if r.err != nil {
				return r.err
			}
		case <-ctx.Done():
			group.Wait()
			j.drop(drop)
			return context.Cause(ctx)
		}
	}
	if stopped {
		return context.Cause(ctx)
	}
	return nil
}

// drop gives an answer that nobody waits for to f.
func (j *job[Item, Answer]) drop(f func(Answer)) {
	select {
	case r := <-j.done:
		if r.err == nil && f != nil {
			f(r.answer)
		}
	default: // work never began
	}
}
