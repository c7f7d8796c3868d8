package handle_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/handle"
)

type owner struct{ h handle.Handle[int] }

func newOwner(raw int, free func(int)) *owner {
	o := new(owner)
	o.h.Init(raw, "thing", free)
	return o
}

func TestFreedOnce(t *testing.T) {
	var freed []int
	o := newOwner(7, func(raw int) { freed = append(freed, raw) })
	raw, ok := o.h.Acquire()
	require.True(t, ok)
	assert.Equal(t, 7, raw)
	o.h.Close()
	assert.Empty(t, freed, "in use")
	_, ok = o.h.Acquire()
	assert.False(t, ok, "closed for new users")
	o.h.Close()
	o.h.Release()
	assert.Equal(t, []int{7}, freed)
	o.h.Close()
	_, ok = o.h.Acquire()
	assert.False(t, ok)
	assert.Equal(t, []int{7}, freed)

	var none *handle.Handle[int]
	none.Close()
	_, ok = none.Acquire()
	assert.False(t, ok)
	var zero handle.Handle[int]
	zero.Close()
	_, ok = zero.Acquire()
	assert.False(t, ok)
}

// TestCloseRaces counts frees while users and closers race: exactly one each, and never under a user.
func TestCloseRaces(t *testing.T) {
	for i := range 2000 {
		var freed, users atomic.Int64
		o := newOwner(i, func(int) {
			freed.Add(1)
			if users.Load() != 0 {
				t.Error("freed in use")
			}
		})
		start := make(chan struct{})
		var group sync.WaitGroup
		for g := range 4 {
			group.Go(func() {
				<-start
				if g == 0 {
					o.h.Close()
					return
				}
				for range 3 {
					if _, ok := o.h.Acquire(); ok {
						users.Add(1)
						users.Add(-1)
						o.h.Release()
					}
				}
			})
		}
		close(start)
		group.Wait()
		require.Equal(t, int64(1), freed.Load())
	}
}

func TestCleanupAndDisown(t *testing.T) {
	var freed atomic.Int64
	func() {
		newOwner(1, func(raw int) { freed.Add(int64(raw)) })
		kept := newOwner(10, func(raw int) { freed.Add(int64(raw)) })
		kept.h.Disown()
		closed := newOwner(100, func(raw int) { freed.Add(int64(raw)) })
		closed.h.Close()
		both := newOwner(1000, func(raw int) { freed.Add(int64(raw)) })
		both.h.Disown()
		both.h.Close()
	}()
	deadline := time.Now().Add(5 * time.Second)
	for freed.Load() != 1101 && time.Now().Before(deadline) {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	runtime.GC()
	time.Sleep(5 * time.Millisecond)
	assert.Equal(t, int64(1101), freed.Load())
}

// TestTable is last: the table stays on.
func TestTable(t *testing.T) {
	table := handle.Trace()
	assert.Same(t, table, handle.Trace())
	assert.Zero(t, table.Live())
	assert.Empty(t, table.Report())

	o := newOwner(5, func(int) {})
	assert.Equal(t, 1, table.Live())
	assert.Contains(t, table.Report(), "thing is still open; made at")
	assert.Contains(t, table.Report(), "TestTable")
	again := newOwner(5, func(int) {})
	assert.Contains(t, table.Report(), "thing registered twice")
	o.h.Close()
	again.h.Close()
	notes := table.Forget()
	require.Len(t, notes, 2)
	assert.Contains(t, notes[1], "handle freed twice")
	assert.Zero(t, table.Live())

	func() { newOwner(6, func(int) {}) }()
	deadline := time.Now().Add(5 * time.Second)
	for table.Live() > 0 && time.Now().Before(deadline) {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	notes = table.Forget()
	require.Len(t, notes, 1)
	assert.Contains(t, notes[0], "thing was not closed, and freed by the garbage collector; made at")

	resume := table.Suspend()
	newOwner(8, func(int) {}).h.Close()
	resume()
	assert.Empty(t, table.Report())
}
