package loader

import (
	"sync"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/transforms"
)

// sample is what is decoded of an image of the set.
type sample struct {
	image *transforms.Image
	mask  *dataset.Mask // nil where none is wanted
}

func (s *sample) bytes() int64 {
	n := int64(s.image.Height()) * int64(s.image.Width()) * int64(s.image.Channels())
	if s.mask != nil {
		n += int64(len(s.mask.Classes))
	}
	return n
}

// cache keeps the first samples that fit. Every image is read once an epoch, so dropping one for another would gain
// nothing.
type cache struct {
	mu      sync.Mutex
	left    int64
	samples map[int]*sample
}

func newCache(bytes int64) *cache { return &cache{left: bytes, samples: map[int]*sample{}} }

func (c *cache) get(i int) *sample {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.samples[i]
}

// put takes the sample over where there is room for it.
func (c *cache) put(i int, s *sample) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.samples[i]; there || s.bytes() > c.left {
		return false
	}
	c.samples[i] = s
	c.left -= s.bytes()
	return true
}

func (c *cache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.samples {
		s.image.Close()
	}
	c.samples, c.left = map[int]*sample{}, 0
}
