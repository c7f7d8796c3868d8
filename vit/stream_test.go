package vit_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// answer is a photo's name, which counts how many of them are open.
type answer struct {
	name string
	open *atomic.Int64
}

func (a answer) Close() error {
	a.open.Add(-1)
	return nil
}

func names(n int) iter.Seq[transforms.Source] {
	return func(yield func(transforms.Source) bool) {
		for i := range n {
			if !yield(string(rune('a' + i))) {
				return
			}
		}
	}
}

func TestStream(t *testing.T) {
	var open atomic.Int64
	var sizes []int
	begun := make(chan struct{}, 8)
	work := func(_ context.Context, photos ...transforms.Source) ([]answer, error) {
		begun <- struct{}{}
		var out []answer
		for _, photo := range photos {
			open.Add(1)
			out = append(out, answer{photo.(string), &open})
		}
		return out, nil
	}
	stream := func(n int, o vit.StreamOptions) iter.Seq2[answer, error] {
		return vit.Stream(t.Context(), names(n), o, work)
	}

	t.Run("order", func(t *testing.T) {
		var got strings.Builder
		for a, err := range vit.Stream(t.Context(), names(7), vit.StreamOptions{Batch: 3, Calls: 1}, func(ctx context.Context, photos ...transforms.Source) ([]answer, error) {
			sizes = append(sizes, len(photos))
			return work(ctx, photos...)
		}) {
			require.NoError(t, err)
			got.WriteString(a.name)
			a.Close()
		}
		assert.Equal(t, "abcdefg", got.String())
		assert.Equal(t, []int{3, 3, 1}, sizes)
		assert.Zero(t, open.Load())
	})
	t.Run("ahead", func(t *testing.T) {
		// The first call does not end before the second has begun.
		second := make(chan struct{})
		var got strings.Builder
		for name, err := range vit.Stream(t.Context(), names(2), vit.StreamOptions{Calls: 2}, func(_ context.Context, photos ...transforms.Source) ([]string, error) {
			if photos[0] == "b" {
				close(second)
			} else {
				<-second
			}
			return []string{photos[0].(string)}, nil
		}) {
			require.NoError(t, err)
			got.WriteString(name)
		}
		assert.Equal(t, "ab", got.String())
	})
	t.Run("left", func(t *testing.T) {
		for a, err := range stream(8, vit.StreamOptions{Batch: 2}) {
			require.NoError(t, err)
			a.Close()
			break
		}
		assert.Zero(t, open.Load(), "answers that nobody got are closed")
	})
	t.Run("error", func(t *testing.T) {
		wrong := errors.New("wrong")
		var got strings.Builder
		var last error
		for name, err := range vit.Stream(t.Context(), names(8), vit.StreamOptions{Batch: 2, Calls: 3}, func(_ context.Context, photos ...transforms.Source) ([]string, error) {
			if photos[0] == "e" {
				return nil, wrong
			}
			return []string{photos[0].(string), photos[1].(string)}, nil
		}) {
			if last = err; err == nil {
				got.WriteString(name)
			}
		}
		assert.ErrorIs(t, last, wrong)
		assert.Equal(t, "abcd", got.String())
	})
	t.Run("too few", func(t *testing.T) {
		for _, err := range vit.Stream(t.Context(), names(1), vit.StreamOptions{}, func(context.Context, ...transforms.Source) ([]int, error) { return nil, nil }) {
			assert.ErrorIs(t, err, vit.ErrOutput)
		}
	})
	t.Run("options", func(t *testing.T) {
		for _, err := range stream(1, vit.StreamOptions{Batch: -1}) {
			assert.ErrorIs(t, err, torch.ErrInvalidArgument)
		}
	})
}
