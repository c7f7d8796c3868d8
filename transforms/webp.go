package transforms

import "encoding/binary"

// webpFile is what the container says.
type webpFile struct {
	exif, xmp []byte
	// frame holds the first frame of an animation: its place on the canvas and its chunks.
	frame          []byte
	frameX, frameY int
	frameW, frameH int
}

// nextRIFF cuts a chunk off; ok is false where the rest is too short for one.
func nextRIFF(data []byte) (kind string, body, rest []byte, ok bool) {
	if len(data) < 8 {
		return "", nil, nil, false
	}
	n := binary.LittleEndian.Uint32(data[4:])
	if uint64(n)+8 > uint64(len(data)) {
		return "", nil, nil, false
	}
	end := 8 + int(n)
	rest = data[min(end+int(n&1), len(data)):]
	return string(data[:4]), data[8:end], rest, true
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// webpSize reads the size of a VP8 or VP8L chunk.
func webpSize(kind string, body []byte) (w, h int, ok bool) {
	switch {
	case kind == "VP8 " && len(body) >= 10:
		return int(binary.LittleEndian.Uint16(body[6:])) & 0x3fff, int(binary.LittleEndian.Uint16(body[8:])) & 0x3fff, true
	case kind == "VP8L" && len(body) >= 5:
		v := binary.LittleEndian.Uint32(body[1:])
		return int(v&0x3fff) + 1, int(v>>14&0x3fff) + 1, true
	}
	return 0, 0, false
}

func inspectWebP(data []byte, info *Info) (*webpFile, error) {
	f := &webpFile{}
	if size := uint64(binary.LittleEndian.Uint32(data[4:])) + 8; uint64(len(data)) < size {
		return nil, damaged(WebP, "the file is cut short: got %d bytes, want %d", len(data), size)
	} else if size >= 12 {
		data = data[:size]
	}
	grow := func(w, h int) { info.Width, info.Height = max(info.Width, w), max(info.Height, h) }
	for rest := data[12:]; ; {
		kind, body, next, ok := nextRIFF(rest)
		if !ok {
			break
		}
		rest = next
		switch kind {
		case "VP8X":
			if len(body) < 10 {
				return nil, damaged(WebP, "the header is cut short")
			}
			info.Animated = body[0]&2 != 0
			grow(uint24(body[4:])+1, uint24(body[7:])+1)
		case "VP8 ", "VP8L":
			if w, h, ok := webpSize(kind, body); ok {
				grow(w, h)
			}
		case "ANMF":
			if f.frame == nil && len(body) >= 16 {
				f.frameX, f.frameY = 2*uint24(body), 2*uint24(body[3:])
				f.frameW, f.frameH = uint24(body[6:])+1, uint24(body[9:])+1
				f.frame = body[16:]
			}
		case "EXIF":
			f.exif = body
		case "XMP ":
			f.xmp = body
		}
	}
	if info.Width == 0 || info.Height == 0 {
		return nil, damaged(WebP, "got no image chunk")
	}
	info.Orientation = orientation(f.exif, f.xmp)
	return f, nil
}

// still makes a file of its own from the first frame of an animation.
func (f *webpFile) still() ([]byte, error) {
	var alpha, image []byte
	for rest := f.frame; ; {
		kind, body, next, ok := nextRIFF(rest)
		if !ok {
			break
		}
		chunk := rest[:len(rest)-len(next)]
		rest = next
		switch kind {
		case "ALPH":
			alpha = chunk
		case "VP8 ", "VP8L":
			if w, h, ok := webpSize(kind, body); !ok || w != f.frameW || h != f.frameH {
				return nil, damaged(WebP, "got a frame of %d x %d pixels, want %d x %d", w, h, f.frameW, f.frameH)
			}
			image = chunk
		}
		if image != nil {
			break
		}
	}
	if image == nil {
		return nil, damaged(WebP, "got no frame")
	}
	out := append(make([]byte, 0, 30+len(alpha)+len(image)), "RIFF\x00\x00\x00\x00WEBP"...)
	if alpha != nil {
		out = append(out, "VP8X\x0a\x00\x00\x00\x10\x00\x00\x00"...)
		for _, v := range []int{f.frameW - 1, f.frameH - 1} {
			out = append(out, byte(v), byte(v>>8), byte(v>>16))
		}
	}
	out = append(append(out, alpha...), image...)
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out, nil
}
