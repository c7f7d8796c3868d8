package transforms

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// pack makes a zlib stream of that level.
func pack(t testing.TB, data []byte, level int) []byte {
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, level)
	require.NoError(t, err)
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// samples are data on which every part of a stream is used.
func samples(r *rand.Rand) [][]byte {
	noise, text, runs, long := make([]byte, 70000), make([]byte, 50000), make([]byte, 40000), make([]byte, 100000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for i := range text {
		text[i] = "abcdefgh ijkl"[r.IntN(13)]
	}
	for i := range runs {
		runs[i] = byte(i / 977)
	}
	for i := range long {
		if i < 30000 {
			long[i] = byte(r.NormFloat64() * 20)
		} else {
			long[i] = long[i-29000-i%2]
		}
	}
	return [][]byte{nil, {1}, noise, text, runs, long, make([]byte, 300000)}
}

func TestInflate(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, data := range samples(r) {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 6, 9} {
			stream := pack(t, data, level)
			got := make([]byte, len(data))
			n, err := inflate(got, stream)
			require.NoError(t, err)
			require.Equal(t, len(data), n)
			require.True(t, bytes.Equal(data, got))

			// More room than there is data, and less.
			n, err = inflate(make([]byte, len(data)+1000), stream)
			require.NoError(t, err)
			require.Equal(t, len(data), n)
			if len(data) > 1 {
				half := make([]byte, len(data)/2)
				n, err = inflate(half, stream)
				require.NoError(t, err)
				require.Equal(t, len(half), n)
				require.True(t, bytes.Equal(data[:n], half))
			}

			for range 20 {
				_, err = inflate(got, stream[:r.IntN(len(stream))])
				require.ErrorIs(t, err, errInflateShort)
			}
			stream[len(stream)-1]++
			_, err = inflate(got, stream)
			require.ErrorIs(t, err, errInflateSum)
		}
	}
}

// agree fails unless inflate and compress/zlib make the same of a stream, and reports whether they took it.
func agree(t *testing.T, stream []byte) bool {
	const limit = 1 << 14
	var want []byte
	reader, err := zlib.NewReader(bytes.NewReader(stream))
	if err == nil {
		want, err = io.ReadAll(io.LimitReader(reader, limit+1))
	}
	if len(want) > limit {
		return false
	}
	got := make([]byte, limit)
	n, mine := inflate(got, stream)
	if (err == nil) != (mine == nil) {
		t.Fatalf("got %v, want %v, for the stream %x", mine, err, stream)
	}
	if err == nil && !bytes.Equal(got[:n], want) {
		t.Fatalf("got %d bytes that differ from the %d of compress/zlib, for the stream %x", n, len(want), stream)
	}
	return err == nil
}

// mend puts the checksum that fits behind a stream that unpacks.
func mend(stream []byte) []byte {
	r := bytes.NewReader(stream[2:])
	data, err := io.ReadAll(io.LimitReader(flate.NewReader(r), 1<<20))
	if err != nil {
		return stream
	}
	end := len(stream) - r.Len()
	return binary.BigEndian.AppendUint32(stream[:end:end], adler32.Checksum(data))
}

// TestInflateDamaged changes streams at random and holds what comes out against compress/zlib.
func TestInflateDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	taken, refused := 0, 0
	for _, data := range samples(r) {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 6} {
			stream := pack(t, data[:min(len(data), 1500)], level)
			for range 500 {
				bad := bytes.Clone(stream)
				for range 1 + r.IntN(3) {
					bad[min(r.IntN(len(bad)), r.IntN(len(bad)))] ^= 1 << r.IntN(8)
				}
				if agree(t, mend(bad)) {
					taken++
				} else {
					refused++
				}
			}
		}
	}
	require.Greater(t, refused, 3000)
	require.Greater(t, taken, 2000)
	t.Logf("%d streams taken by both, %d refused by both", taken, refused)
}

// FuzzInflate holds it against compress/zlib: the same bytes, or both refuse.
func FuzzInflate(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, data := range samples(r) {
		for _, level := range []int{flate.HuffmanOnly, 0, 6} {
			f.Add(pack(f, data[:min(len(data), 3000)], level))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 2 {
			stream = mend(stream)
		}
		agree(t, stream)
	})
}
