package transforms

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
)

// Format is the kind of an image file.
type Format string

// The formats that are decoded.
const (
	JPEG Format = "JPEG"
	PNG  Format = "PNG"
	WebP Format = "WebP"
	GIF  Format = "GIF"
	BMP  Format = "BMP"
	TIFF Format = "TIFF"
)

// Info is what the header of an image file says.
type Info struct {
	Format Format
	// Height and Width are in pixels, as stored: EXIF orientation is not applied.
	Height, Width int
	// Orientation is EXIF's, 1 to 8; 1 where there is none.
	Orientation int
	// Animated says whether there is more than one frame (WebP) or an animation chunk (PNG). Not looked
	// for in GIF, whose frames are not counted in its header.
	Animated bool
}

// sniff names the format by the file's first bytes, "" for none that is known.
func sniff(data []byte) Format {
	has := func(prefix string) bool { return len(data) >= len(prefix) && string(data[:len(prefix)]) == prefix }
	switch {
	case has("\xff\xd8\xff"):
		return JPEG
	case has(pngSignature):
		return PNG
	case has("RIFF") && len(data) >= 12 && string(data[8:12]) == "WEBP":
		return WebP
	case has("GIF87a"), has("GIF89a"):
		return GIF
	case has("BM"):
		return BMP
	case has("II*\x00"), has("MM\x00*"):
		return TIFF
	}
	return ""
}

// sniffLen is how many bytes sniff looks at.
const sniffLen = 12

// Inspect reads the header of an image file. Nothing is decoded and no library is needed.
func Inspect(data []byte) (Info, error) {
	info := Info{Format: sniff(data), Orientation: 1}
	var err error
	switch info.Format {
	case JPEG:
		err = inspectJPEG(data, &info)
	case PNG:
		err = inspectPNG(data, &info)
	case WebP:
		_, err = inspectWebP(data, &info)
	case GIF:
		err = inspectGIF(data, &info)
	case BMP:
		err = guard(BMP, func() error {
			c, err := bmp.DecodeConfig(bytes.NewReader(data))
			info.Height, info.Width = c.Height, c.Width
			return err
		})
	case TIFF:
		err = guard(TIFF, func() error {
			c, err := tiff.DecodeConfig(bytes.NewReader(data))
			info.Height, info.Width = c.Height, c.Width
			return err
		})
		info.Orientation = tiffOrientation(data)
	default:
		return info, fmt.Errorf("%w: got %s, want JPEG, PNG, WebP, GIF, BMP or TIFF", ErrFormat, firstBytes(data))
	}
	if err != nil {
		return info, err
	}
	if info.Height < 1 || info.Width < 1 {
		return info, damaged(info.Format, "got %d x %d pixels, want at least one", info.Width, info.Height)
	}
	return info, nil
}

func firstBytes(data []byte) string {
	if len(data) == 0 {
		return "no bytes"
	}
	return strconv.Quote(string(data[:min(len(data), 8)])) + " at the start"
}

// --- JPEG -----------------------------------------------------------------------------------------

func inspectJPEG(data []byte, info *Info) error {
	found := false
	var exif, xmp []byte
	for p := 2; ; {
		// A marker, after any number of fill bytes. Bytes between segments are skipped, as libjpeg does.
		for p < len(data) && data[p] != 0xff {
			p++
		}
		for p < len(data) && data[p] == 0xff {
			p++
		}
		if p >= len(data) {
			return damaged(JPEG, "the header is cut short")
		}
		marker := data[p]
		p++
		if marker == 0 || marker == 1 || marker >= 0xd0 && marker <= 0xd8 {
			continue // no segment follows
		}
		if marker == 0xd9 {
			return damaged(JPEG, "got the end of the image before any pixels")
		}
		if p+2 > len(data) {
			return damaged(JPEG, "the header is cut short")
		}
		n := int(binary.BigEndian.Uint16(data[p:]))
		if n < 2 || p+n > len(data) {
			return damaged(JPEG, "the header is cut short")
		}
		body := data[p+2 : p+n]
		p += n
		switch {
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc:
			if len(body) < 6 {
				return damaged(JPEG, "got a frame header of %d bytes, want at least 6", len(body))
			}
			h, w := int(binary.BigEndian.Uint16(body[1:])), int(binary.BigEndian.Uint16(body[3:]))
			info.Height, info.Width = max(info.Height, h), max(info.Width, w)
			found = true
		case marker == 0xe1 && bytes.HasPrefix(body, []byte("Exif\x00\x00")):
			if exif == nil {
				exif = body[6:]
			}
		case marker == 0xe1 && bytes.HasPrefix(body, []byte("http://ns.adobe.com/xap/1.0/\x00")):
			xmp = body
		case marker == 0xda:
			if !found {
				return damaged(JPEG, "got pixels before their size")
			}
			info.Orientation = orientation(exif, xmp)
			return nil
		}
	}
}

// --- orientation ----------------------------------------------------------------------------------

var xmpOrientation = regexp.MustCompile(`tiff:Orientation(?:="|>)([0-9])`)

// orientation reads EXIF's tag 0x0112, else XMP's tiff:Orientation, as Pillow's getexif does.
func orientation(exif, xmp []byte) int {
	if o, ok := exifOrientation(exif); ok {
		return o
	}
	if m := xmpOrientation.FindSubmatch(xmp); m != nil {
		return validOrientation(int(m[1][0] - '0'))
	}
	return 1
}

func tiffOrientation(data []byte) int {
	o, _ := exifOrientation(data)
	return max(o, 1)
}

func validOrientation(o int) int {
	if o < 1 || o > 8 {
		return 1
	}
	return o
}

// exifOrientation looks for the tag in the first directory of a TIFF structure.
func exifOrientation(data []byte) (int, bool) {
	data = bytes.TrimPrefix(data, []byte("Exif\x00\x00"))
	if len(data) < 8 {
		return 1, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch string(data[:2]) {
	case "II":
	case "MM":
		order = binary.BigEndian
	default:
		return 1, false
	}
	at := int64(order.Uint32(data[4:]))
	if at+2 > int64(len(data)) {
		return 1, false
	}
	entries := data[at+2:]
	for range order.Uint16(data[at:]) {
		if len(entries) < 12 {
			break
		}
		if order.Uint16(entries) == 0x0112 {
			switch order.Uint16(entries[2:]) {
			case 1: // BYTE
				return validOrientation(int(entries[8])), true
			case 3: // SHORT
				return validOrientation(int(order.Uint16(entries[8:]))), true
			case 4: // LONG
				return validOrientation(int(min(order.Uint32(entries[8:]), 9))), true
			}
			return 1, false
		}
		entries = entries[12:]
	}
	return 1, false
}
