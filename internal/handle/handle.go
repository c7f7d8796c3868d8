// Package handle holds the one owner type for objects of libtorch, and the table of live ones that
// test binaries turn on.
package handle

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

const closed = 1 << 62

// Handle owns one object of C. Close frees it now; a cleanup frees it when the owner is collected
// without Close. Closing while another goroutine uses the object is safe: the last user frees it.
//
// A Handle lives inside its owner and must not be copied.
type Handle[H comparable] struct {
	raw     H
	free    func(H)
	state   atomic.Int64 // users, plus the closed bit
	cleanup runtime.Cleanup
}

// Init takes over raw. free runs once, on any goroutine.
func (h *Handle[H]) Init(raw H, kind string, free func(H)) {
	h.raw, h.free = raw, free
	if t := table.Load(); t != nil {
		t.add(raw, kind)
		h.cleanup = runtime.AddCleanup(h, func(raw H) {
			t.collected(raw)
			free(raw)
		}, raw)
		return
	}
	h.cleanup = runtime.AddCleanup(h, free, raw)
}

// Acquire gives the object for use until Release; false after Close.
func (h *Handle[H]) Acquire() (H, bool) {
	if h == nil || h.free == nil {
		var none H
		return none, false
	}
	if h.state.Add(1)&closed != 0 {
		h.Release()
		var none H
		return none, false
	}
	return h.raw, true
}

// Release ends a use. It also keeps the owner alive until here, so no caller needs runtime.KeepAlive.
func (h *Handle[H]) Release() {
	if h.state.Add(-1) == closed {
		h.freeOnce()
	}
	runtime.KeepAlive(h)
}

// Close frees the object, at once or when its last user is done. Again, or on nil: no effect.
func (h *Handle[H]) Close() {
	if h == nil || h.free == nil {
		return
	}
	if old := h.state.Or(closed); old == 0 {
		h.freeOnce()
	}
}

// Disown stops the cleanup: from now on only Close frees the object.
func (h *Handle[H]) Disown() { h.cleanup.Stop() }

// freed marks that the object is gone: a user count that no program reaches.
const freed = closed | 1<<61

func (h *Handle[H]) freeOnce() {
	// A late Acquire may still count itself in and out, and would see the closed state again.
	if !h.state.CompareAndSwap(closed, freed) {
		return
	}
	h.cleanup.Stop()
	if t := table.Load(); t != nil {
		t.remove(h.raw)
	}
	h.free(h.raw)
	runtime.KeepAlive(h)
}

// table is on in test binaries; elsewhere a handle costs one nil check.
var table atomic.Pointer[Table]

// Table records every live handle with the stack that made it.
type Table struct {
	mu        sync.Mutex
	live      map[any]entry
	forgotten []string
}

type entry struct {
	kind  string
	stack []byte
}

// Trace turns the table on for the rest of the process and gives it.
func Trace() *Table {
	t := &Table{live: map[any]entry{}}
	if !table.CompareAndSwap(nil, t) {
		return table.Load()
	}
	return t
}

// Suspend turns the table off until resume is called, for measurements. Handles that are made meanwhile
// must be closed before resume, and older ones after it.
func (t *Table) Suspend() (resume func()) {
	table.Store(nil)
	return func() { table.Store(t) }
}

func (t *Table) add(raw any, kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.live[raw]; ok {
		// Only in test binaries: a handle registered twice would be freed twice.
		t.forgotten = append(t.forgotten, fmt.Sprintf("%s registered twice, first at\n%s", kind, e.stack))
	}
	t.live[raw] = entry{kind, debug.Stack()}
}

func (t *Table) remove(raw any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.live[raw]; !ok {
		t.forgotten = append(t.forgotten, fmt.Sprintf("handle freed twice\n%s", debug.Stack()))
	}
	delete(t.live, raw)
}

// collected notes a handle that the garbage collector had to free.
func (t *Table) collected(raw any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.live[raw]
	delete(t.live, raw)
	t.forgotten = append(t.forgotten, fmt.Sprintf("%s was not closed, and freed by the garbage collector; made at\n%s", e.kind, e.stack))
}

// Live is the number of handles that are alive.
func (t *Table) Live() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live)
}

// Forget drops the notes on handles that were collected or misused, and gives them. Tests that let the
// collector do its work on purpose call it.
func (t *Table) Forget() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.forgotten
	t.forgotten = nil
	return f
}

// Report describes every live or forgotten handle, "" for none.
func (t *Table) Report() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := append([]string(nil), t.forgotten...)
	for _, e := range t.live {
		lines = append(lines, fmt.Sprintf("%s is still open; made at\n%s", e.kind, e.stack))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
