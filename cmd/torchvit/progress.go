package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progressDelay is how long work takes before it is worth a bar.
const progressDelay = time.Second

// progress shows how far some work is. It is drawn on stderr, only where that
// is a terminal, only once the work has taken a second, and is gone at the end.
type progress struct {
	w     io.Writer // nil draws nothing
	what  string
	total int
	done  int
	start time.Time
	bar   *progressbar.ProgressBar
}

// newProgress starts the clock; the caller calls finish.
func (a *app) newProgress(total int, what string) *progress {
	p := &progress{what: what, total: total, start: time.Now()}
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = f
	}
	return p
}

// add notes n finished pieces of work.
func (p *progress) add(n int) {
	p.done += n
	if p.w == nil || p.bar == nil && time.Since(p.start) < progressDelay {
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions(p.total,
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionSetDescription(p.what),
			progressbar.OptionShowCount(),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	_ = p.bar.Set(p.done) // fails only where the bar is complete already
}

// finish clears the bar's line.
func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
