package train

import "time"

// clock tells how fast steps are.
type clock struct {
	at        []time.Time // of the last steps' ends
	images    []int
	measuring time.Duration // the last measurement
}

const clockSteps = 20

// begin forgets what was before: a measurement, say.
func (c *clock) begin() { c.at, c.images = append(c.at[:0], time.Now()), append(c.images[:0], 0) }

// tick notes a step and gives images in a second and the time for the steps and measurements that remain.
func (c *clock) tick(images, steps, measurements int) (rate float64, remaining time.Duration) {
	c.at, c.images = append(c.at, time.Now()), append(c.images, images)
	if n := len(c.at) - clockSteps - 1; n > 0 {
		c.at, c.images = c.at[n:], c.images[n:]
	}
	sum := 0
	for _, n := range c.images[1:] {
		sum += n
	}
	took := c.at[len(c.at)-1].Sub(c.at[0])
	remaining = took/time.Duration(len(c.at)-1)*time.Duration(steps) + c.measuring*time.Duration(measurements)
	return float64(sum) / max(took.Seconds(), 1e-9), remaining
}
