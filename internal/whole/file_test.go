package whole_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/whole"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	say := func(s string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	content := func() string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}
	require.NoError(t, whole.Write(path, say("first")))
	require.NoError(t, os.Chmod(path, 0o640))

	boom := errors.New("boom")
	err := whole.Write(path, func(w io.Writer) error { _, _ = io.WriteString(w, "half"); return boom })
	require.ErrorIs(t, err, boom)
	assert.Equal(t, "first", content())

	require.NoError(t, whole.Write(path, say("second")))
	assert.Equal(t, "second", content())
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o640), info.Mode().Perm())

	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink("a.txt", link))
	require.NoError(t, whole.Write(link, say("third")))
	assert.Equal(t, "third", content())
	info, err = os.Lstat(link)
	require.NoError(t, err)
	assert.Equal(t, fs.ModeSymlink, info.Mode().Type())

	require.ErrorIs(t, whole.Write(filepath.Join(dir, "none", "a"), say("x")), fs.ErrNotExist)
	require.ErrorIs(t, whole.Write(dir, say("x")), fs.ErrExist)
	require.NoError(t, whole.Write("/dev/null", say("x")))
	require.ErrorIs(t, whole.Write("/dev/null", func(io.Writer) error { return boom }), boom)

	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, left, 2, "no temporary file is left")
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	require.NoError(t, os.WriteFile(path, []byte("before"), 0o600))
	f, err := whole.Create(path)
	require.NoError(t, err)
	_, err = f.WriteString("after")
	require.NoError(t, err)
	f.Abort()
	f.Abort()
	assert.True(t, f.Done())
	require.ErrorIs(t, f.Commit(), os.ErrClosed)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "before", string(text))

	f, err = whole.Create(path)
	require.NoError(t, err)
	_, err = f.WriteString("after")
	require.NoError(t, err)
	require.NoError(t, f.Commit())
	f.Abort()
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "after", string(text))

	// What cannot take its place leaves nothing behind.
	f, err = whole.Create(filepath.Join(dir, "folder"))
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "folder", "full"), 0o700))
	require.Error(t, f.Commit())
	assert.True(t, f.Done())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, left, 2)
}
