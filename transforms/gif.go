package transforms

import (
	"compress/lzw"
	"encoding/binary"
	"errors"
	"io"
)

// GIF is decoded here and not by torchvision, which paints transparent pixels and the part of the canvas
// outside the first frame in other colours than Pillow, and which decodes every frame of an animation.

// gifFrame is where the first frame of a file lies and what it looks like.
type gifFrame struct {
	width, height int // of the canvas, made larger where the frame sticks out
	x, y, w, h    int
	interlaced    bool
	palette       [256][3]byte
	background    byte // the index that the canvas is filled with
	litWidth      int
	data          []byte // sub-blocks
}

func inspectGIF(data []byte, info *Info) error {
	f, err := readGIF(data)
	if err != nil {
		return err
	}
	info.Height, info.Width = f.height, f.width
	return nil
}

var errGIFShort = damaged(GIF, "the file is cut short")

// readGIF finds the first frame, by the rules of Pillow's GifImagePlugin.
func readGIF(data []byte) (*gifFrame, error) {
	if len(data) < 13 {
		return nil, errGIFShort
	}
	f := &gifFrame{
		width:  int(binary.LittleEndian.Uint16(data[6:])),
		height: int(binary.LittleEndian.Uint16(data[8:])),
	}
	// A file without a palette is grey.
	for i := range f.palette {
		f.palette[i] = [3]byte{byte(i), byte(i), byte(i)}
	}
	p := 13
	readPalette := func(flags byte) bool {
		n := 3 << (flags&7 + 1)
		if p+n > len(data) {
			return false
		}
		// Pillow passes over a palette in which colour i is the grey of level i, so that in a local one the
		// global palette stays.
		if colours := data[p : p+n]; !identity(colours) {
			f.palette = [256][3]byte{}
			for i := range n / 3 {
				copy(f.palette[i][:], colours[3*i:])
			}
		}
		p += n
		return true
	}
	if flags := data[10]; flags&0x80 != 0 && !readPalette(flags) {
		return nil, errGIFShort
	}
	for {
		if p >= len(data) {
			return nil, errGIFShort
		}
		kind := data[p]
		p++
		switch kind {
		case '!':
			if p >= len(data) {
				return nil, errGIFShort
			}
			label := data[p]
			p++
			for first := true; ; first = false {
				if p >= len(data) {
					return nil, errGIFShort
				}
				n := int(data[p])
				p++
				if n == 0 {
					break
				}
				if p+n > len(data) {
					return nil, errGIFShort
				}
				if label == 0xf9 && first && n >= 4 && data[p]&1 != 0 {
					f.background = data[p+3]
				}
				p += n
			}
		case ',':
			if p+9 > len(data) {
				return nil, errGIFShort
			}
			u16 := func(i int) int { return int(binary.LittleEndian.Uint16(data[p+i:])) }
			f.x, f.y, f.w, f.h = u16(0), u16(2), u16(4), u16(6)
			flags := data[p+8]
			p += 9
			f.width, f.height = max(f.width, f.x+f.w), max(f.height, f.y+f.h)
			f.interlaced = flags&0x40 != 0
			if flags&0x80 != 0 && !readPalette(flags) {
				return nil, errGIFShort
			}
			if p >= len(data) {
				return nil, errGIFShort
			}
			f.litWidth = int(data[p])
			f.data = data[p+1:]
			return f, nil
		case ';':
			return nil, damaged(GIF, "got no frame")
		}
	}
}

func identity(colours []byte) bool {
	for i, v := range colours {
		if int(v) != i/3 {
			return false
		}
	}
	return true
}

// subBlocks reads the content of GIF sub-blocks.
type subBlocks struct {
	data []byte
	left int
}

func (b *subBlocks) ReadByte() (byte, error) {
	if b.left == 0 {
		if len(b.data) == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		b.left = int(b.data[0])
		b.data = b.data[1:]
		if b.left == 0 {
			b.data = nil
			return 0, io.EOF
		}
	}
	if len(b.data) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	c := b.data[0]
	b.data = b.data[1:]
	b.left--
	return c, nil
}

func (b *subBlocks) Read(p []byte) (int, error) {
	for i := range p {
		c, err := b.ReadByte()
		if err != nil {
			return i, err
		}
		p[i] = c
	}
	return len(p), nil
}

// decodeGIF writes the first frame to dst, height x width x 3, as Pillow's convert("RGB") gives it.
func decodeGIF(data, dst []byte) error {
	f, err := readGIF(data)
	if err != nil {
		return err
	}
	if f.litWidth < 2 || f.litWidth > 8 {
		return damaged(GIF, "got codes of %d bits, want 2 to 8", f.litWidth)
	}
	if f.w != f.width || f.h != f.height {
		c := f.palette[f.background]
		for i := 0; i < len(dst); i += 3 {
			dst[i], dst[i+1], dst[i+2] = c[0], c[1], c[2]
		}
	}
	r := lzw.NewReader(&subBlocks{data: f.data}, lzw.LSB, f.litWidth)
	defer r.Close()
	row := make([]byte, f.w)
	for i := range f.h {
		if _, err := io.ReadFull(r, row); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return damaged(GIF, "the pixels are cut short")
			}
			return damaged(GIF, "the pixels do not decompress (%s)", err)
		}
		y := i
		if f.interlaced {
			y = deinterlace(i, f.h)
		}
		out := dst[((f.y+y)*f.width+f.x)*3:]
		for x, index := range row {
			c := &f.palette[index]
			o := out[3*x : 3*x+3 : 3*x+3]
			o[0], o[1], o[2] = c[0], c[1], c[2]
		}
	}
	return nil
}

// deinterlace gives the line at which the i-th line of an interlaced frame of n lines goes.
func deinterlace(i, n int) int {
	for _, pass := range [...]struct{ start, step int }{{0, 8}, {4, 8}, {2, 4}, {1, 2}} {
		lines := (n - pass.start + pass.step - 1) / pass.step
		if n <= pass.start {
			lines = 0
		}
		if i < lines {
			return pass.start + i*pass.step
		}
		i -= lines
	}
	return n - 1
}
