package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := (&app{stderr: &out}).newProgress(10, "images")
	p.start = p.start.Add(-time.Hour)
	p.add(5)
	p.finish()
	assert.Empty(t, out.String(), "what is no terminal gets no bar")

	p = &progress{w: &out, what: "images", total: 10, start: time.Now()}
	p.add(1)
	p.finish()
	assert.Empty(t, out.String(), "short work gets no bar")

	p = &progress{w: &out, what: "images", total: 10, start: time.Now().Add(-2 * time.Second)}
	p.add(4)
	assert.Contains(t, out.String(), "images")
	assert.Contains(t, out.String(), "4/10")
	p.finish()
}
