package transforms

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

func TestMain(m *testing.M) { testmain.Run(m, torch.Config{Device: "cpu"}) }

// python is testdata/reference.py, one process for the whole test binary.
var python struct {
	sync.Mutex
	in  io.Writer
	out *bufio.Reader
}

type object map[string]any

// ask sends a request to Python and reads its answer into result.
func ask(t testing.TB, request object, result any, blobs ...[]byte) [][]byte {
	t.Helper()
	python.Lock()
	defer python.Unlock()
	if python.in == nil {
		cmd := exec.Command(testmain.Python(t), "-W", "ignore", filepath.Join(testmain.Root(t), "transforms", "testdata", "reference.py"))
		// Some of torch's kernels depend on the number of threads in their last bits.
		info, err := torch.RuntimeInfo()
		require.NoError(t, err)
		cmd.Env = append(os.Environ(), "OMP_NUM_THREADS="+strconv.Itoa(info.LaneThreads[0]))
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		cmd.Stderr = os.Stderr
		require.NoError(t, cmd.Start())
		python.in, python.out = in, bufio.NewReaderSize(out, 1<<20)
	}
	lengths := make([]int, len(blobs))
	for i, b := range blobs {
		lengths[i] = len(b)
	}
	request["blobs"] = lengths
	line, err := json.Marshal(request)
	require.NoError(t, err)
	go func() {
		_, _ = python.in.Write(append(line, '\n'))
		for _, b := range blobs {
			_, _ = python.in.Write(b)
		}
	}()
	line, err = python.out.ReadBytes('\n')
	require.NoError(t, err, "Python ended")
	var head struct {
		Blobs []int
		Error string
	}
	require.NoError(t, json.Unmarshal(line, &head))
	require.Empty(t, head.Error)
	if result != nil {
		require.NoError(t, json.Unmarshal(line, result))
	}
	answers := make([][]byte, len(head.Blobs))
	for i, n := range head.Blobs {
		answers[i] = make([]byte, n)
		_, err := io.ReadFull(python.out, answers[i])
		require.NoError(t, err)
	}
	return answers
}

// files asks Python for a group of image files.
func files(t testing.TB, group string) (names []string, data [][]byte) {
	t.Helper()
	var answer struct{ Names []string }
	data = ask(t, object{"op": "files", "group": group}, &answer)
	require.Len(t, data, len(answer.Names))
	require.Greater(t, len(data), 20)
	return answer.Names, data
}

// decoded is what Pillow makes of a file.
type decoded struct {
	Height, Width int
	Error         string
	Pixels        []byte
}

func pillowDecode(t testing.TB, exif bool, mode string, data ...[]byte) []decoded {
	t.Helper()
	var answer struct {
		Sizes  [][2]int
		Errors []string
	}
	pixels := ask(t, object{"op": "decode", "exif": exif, "mode": mode}, &answer, data...)
	out := make([]decoded, len(data))
	for i := range data {
		out[i] = decoded{answer.Sizes[i][0], answer.Sizes[i][1], answer.Errors[i], pixels[i]}
	}
	return out
}

func floats(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// sameBits counts the values that differ in any bit.
func differingBits(a, b []float32) int {
	if len(a) != len(b) {
		return max(len(a), len(b))
	}
	n := 0
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			n++
		}
	}
	return n
}

func differingBytes(a, b []byte) int {
	if len(a) != len(b) {
		return max(len(a), len(b))
	}
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// rgb copies an image's pixels, H x W x C.
func rgb(t testing.TB, m *Image) []byte {
	t.Helper()
	out := make([]byte, 0, m.Height()*m.Width()*m.Channels())
	l := m.layout
	require.NoError(t, m.bytes(func(src []byte) error {
		for y := range l.Height {
			for x := range l.Width {
				for c := range l.Channels {
					out = append(out, src[y*l.StrideRow+x*l.StridePixel+c*l.StrideChannel])
				}
			}
		}
		return nil
	}))
	return out
}

// photo reads a file of testdata/images.
func photo(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(photoPath(t, name))
	require.NoError(t, err)
	return data
}

func photoPath(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(testmain.Root(t), "testdata", "images", filepath.FromSlash(name))
}

var photos = []string{"astronaut.jpg", "chelsea.png", "coffee.jpg", "rocket.jpg"}

// formatFiles are the small files of testdata/images/formats.
func formatFiles(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(photoPath(t, "formats"))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, "formats/"+e.Name())
	}
	require.GreaterOrEqual(t, len(names), 30)
	return names
}
