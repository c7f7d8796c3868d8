package transforms

import (
	"context"
	"fmt"
	"runtime"
	"sync"
)

// light holds a place for each decoder or resize that runs: GOMAXPROCS at once, however many goroutines
// call.
var light = sync.OnceValue(func() chan struct{} { return make(chan struct{}, runtime.GOMAXPROCS(0)) })

func takeLight(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	select {
	case light() <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting to decode: %w", context.Cause(ctx))
	}
}

func leaveLight() { <-light() }
