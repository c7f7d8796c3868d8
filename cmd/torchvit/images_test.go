package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// words is an answer of one word.
type words string

func (w words) print(out io.Writer) error {
	_, err := fmt.Fprintln(out, string(w))
	return err
}

func TestEachImageKeepsTheOrder(t *testing.T) {
	synctest.Test(t, eachImageKeepsTheOrder) // its clock is a fake one
}

func eachImageKeepsTheOrder(t *testing.T) {
	var out, errs bytes.Buffer
	var running, most atomic.Int32
	a := &app{stdout: &out, stderr: &errs, lanes: 3}
	paths := strings.Split("abcdefghij", "")
	err := a.eachImage(t.Context(), paths, func(_ context.Context, path string) (found, error) {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Duration('k'-path[0]) * time.Millisecond) // the last is the fastest
		return found{answer: words(path), files: []string{path + ".png"}}, nil
	})
	require.NoError(t, err)
	assert.Equal(t, strings.Join(paths, "\n")+"\n", out.String())
	assert.Equal(t, "wrote "+strings.Join(paths, ".png\nwrote ")+".png\n", errs.String())
	assert.EqualValues(t, 4, most.Load(), "one more at once than there are lanes")
}

func TestEachImageStopsAtTheFirstError(t *testing.T) {
	for _, lanes := range []int{1, 4} {
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: io.Discard, lanes: lanes}
		broken := errors.New("broken")
		var done, begun atomic.Int32
		err := a.eachImage(t.Context(), strings.Split("abcdefgh", ""), func(_ context.Context, path string) (found, error) {
			begun.Add(1)
			defer done.Add(1)
			if path == "c" {
				return found{}, broken
			}
			return found{answer: words(path)}, nil
		})
		require.ErrorIs(t, err, broken)
		assert.Equal(t, "c: broken", err.Error(), "the image is named")
		assert.Equal(t, "a\nb\n", out.String())
		assert.Equal(t, begun.Load(), done.Load(), "no work is left behind")
	}
}

func TestEachImageEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a := &app{stdout: io.Discard, stderr: io.Discard}
	var mutex sync.Mutex
	n := 0
	err := a.eachImage(ctx, make([]string, 1000), func(context.Context, string) (found, error) {
		mutex.Lock() // two work at once, one more than there are lanes
		defer mutex.Unlock()
		if n++; n == 3 {
			cancel()
		}
		return found{answer: words("x")}, ctx.Err()
	})
	require.ErrorIs(t, err, context.Canceled)
	assert.LessOrEqual(t, n, 5, "the one that waits for the mutex, and the one on its way")
}

func TestNamesOfPictures(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	photos := []string{"x/cat.jpg", "cat.png", "dog.tar.webp", "x/cat.jpg", "y/cat.jpg", ".hidden"}
	p, err := newPictures(dir, photos)
	require.NoError(t, err)
	require.DirExists(t, dir)
	var names []string
	for _, photo := range photos {
		names = append(names, filepath.Base(p.path(photo, ".mask.png")))
	}
	assert.Equal(t, []string{"cat.jpg.mask.png", "cat.png.mask.png", "dog.tar.mask.png", "cat.jpg.mask.png", "cat.jpg-2.mask.png", ".hidden.mask.png"}, names)

	p, err = newPictures("", photos)
	require.NoError(t, err)
	assert.Nil(t, p)
}

func TestPictureIsThePhoto(t *testing.T) {
	img, err := openPhoto(t.Context(), photoFile(t, "chelsea.png"))
	require.NoError(t, err)
	defer img.Close()
	got, err := img.RGBA()
	require.NoError(t, err)
	want := decodePNG(t, photoFile(t, "chelsea.png"))
	require.Equal(t, want.Bounds(), got.Bounds())
	different := 0
	for y := range got.Rect.Dy() {
		for x := range got.Rect.Dx() {
			if got.RGBAAt(x, y) != color.RGBAModel.Convert(want.At(x, y)) {
				different++
			}
		}
	}
	assert.Zero(t, different)
}

func TestDrawClasses(t *testing.T) {
	classes := []classifyResult{{"cat", 0.75}, {"dog", 0.2}, {"a name that is much longer than the picture is wide", 0.05}}
	for _, size := range []image.Point{{640, 480}, {60, 20}, {1, 1}} {
		img := image.NewRGBA(image.Rectangle{Max: size})
		require.NoError(t, drawClasses(img, classes))
		drawn := 0
		for i := range img.Pix {
			if img.Pix[i] != 0 {
				drawn++
			}
		}
		if size.X > 1 {
			assert.NotZero(t, drawn, "%v", size)
		}
	}
	// The best class stands out.
	img := image.NewRGBA(image.Rect(0, 0, 640, 480))
	require.NoError(t, drawClasses(img, classes))
	colours := map[color.RGBA]int{}
	for y := range 480 {
		colours[img.RGBAAt(5, y)]++
	}
	assert.GreaterOrEqual(t, len(colours), 3, "the photo and two kinds of plate")
}
