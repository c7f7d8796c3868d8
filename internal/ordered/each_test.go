package ordered_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/ordered"
)

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestAnswersComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, begun atomic.Int64
		added := 0
		err := ordered.Each(t.Context(), slices.Values(numbers(50)), 3, func(_ context.Context, i int) (string, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			begun.Add(1)
			time.Sleep(time.Duration(50-i%7) * time.Millisecond) // later ones are ready first
			return fmt.Sprint(i), nil
		}, func(i int, answer string) error {
			assert.Equal(t, added, i)
			assert.Equal(t, fmt.Sprint(i), answer)
			time.Sleep(time.Second) // what waits to be added is bounded
			assert.LessOrEqual(t, begun.Load(), int64(added+2*3+1))
			added++
			return nil
		}, nil)
		require.NoError(t, err)
		assert.Equal(t, 50, added)
		assert.Equal(t, int64(3), most.Load())
	})
}

func TestTheFirstErrorEndsIt(t *testing.T) {
	for name, broken := range map[string]bool{"work": true, "add": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wrong := errors.New("wrong")
				var running atomic.Int64
				added, dropped := 0, map[int]bool{}
				err := ordered.Each(t.Context(), slices.Values(numbers(20)), 4, func(_ context.Context, i int) (int, error) {
					running.Add(1)
					defer running.Add(-1)
					time.Sleep(time.Duration(20-i) * time.Second) // 8 fails before 5 does
					if broken && (i == 5 || i == 8) {
						return 0, fmt.Errorf("%d: %w", i, wrong)
					}
					return i, nil
				}, func(i, _ int) error {
					added++
					if !broken && i == 5 {
						return fmt.Errorf("%d: %w", i, wrong)
					}
					return nil
				}, func(i int) { dropped[i] = true })
				require.EqualError(t, err, "5: wrong")
				require.ErrorIs(t, err, wrong)
				assert.Zero(t, running.Load(), "no work is left behind")
				assert.True(t, dropped[6] && dropped[7], "answers that nobody got")
				assert.False(t, dropped[4] || dropped[5])
			})
		})
	}
}

func TestAContextEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		err := ordered.Each(ctx, slices.Values(numbers(20)), 2, func(ctx context.Context, i int) (int, error) {
			if i == 4 {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return i, nil
		}, func(i, _ int) error {
			if i == 3 {
				cancel(stop)
			}
			return nil
		}, nil)
		require.ErrorIs(t, err, stop)
	})
	require.NoError(t, ordered.Each(t.Context(), slices.Values([]int(nil)), 3, func(context.Context, int) (int, error) { return 0, nil }, func(int, int) error { return nil }, nil))
}
