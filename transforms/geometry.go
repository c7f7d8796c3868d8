package transforms

// Geometry tells how a model's input came out of a photo, so that boxes and maps can be taken back to
// it: the photo is resized, and a window of the result is what the model sees. Sizes are in pixels.
type Geometry struct {
	// Height and Width are the photo's own, after EXIF orientation where that was applied.
	Height int `json:"height"`
	Width  int `json:"width"`
	// ResizedHeight and ResizedWidth are those of the whole photo after the resize.
	ResizedHeight int `json:"resized_height"`
	ResizedWidth  int `json:"resized_width"`
	// Top and Left are the window's corner in the resized photo: positive where it was cropped, negative
	// where it was padded.
	Top  int `json:"top"`
	Left int `json:"left"`
	// OutputHeight and OutputWidth are the window's size: that of the tensor.
	OutputHeight int `json:"output_height"`
	OutputWidth  int `json:"output_width"`
}

func wholePhoto(height, width int) Geometry {
	return Geometry{
		Height: height, Width: width, ResizedHeight: height, ResizedWidth: width,
		OutputHeight: height, OutputWidth: width,
	}
}

// Whole reports whether the tensor shows all of the photo and nothing else: neither cropped nor padded.
func (g Geometry) Whole() bool {
	return g.Top == 0 && g.Left == 0 && g.OutputHeight == g.ResizedHeight && g.OutputWidth == g.ResizedWidth
}

// ToPhoto takes a point of the tensor, in its pixels, to the photo. The result may lie outside the photo
// where the point lies in padding. Exact where the photo was not resized.
func (g Geometry) ToPhoto(x, y float32) (photoX, photoY float32) {
	sx := float32(g.Width) / float32(g.ResizedWidth)
	sy := float32(g.Height) / float32(g.ResizedHeight)
	return float32((x + float32(g.Left)) * sx), float32((y + float32(g.Top)) * sy)
}

// FromPhoto takes a point of the photo, in its pixels, to the tensor.
func (g Geometry) FromPhoto(x, y float32) (tensorX, tensorY float32) {
	sx := float32(g.ResizedWidth) / float32(g.Width)
	sy := float32(g.ResizedHeight) / float32(g.Height)
	return float32(x*sx) - float32(g.Left), float32(y*sy) - float32(g.Top)
}

// Visible is the part of the tensor that shows photo and not padding: rows y0 to y1, columns x0 to x1.
func (g Geometry) Visible() (x0, y0, x1, y1 int) {
	return max(0, -g.Left), max(0, -g.Top),
		max(0, min(g.OutputWidth, g.ResizedWidth-g.Left)), max(0, min(g.OutputHeight, g.ResizedHeight-g.Top))
}

// window narrows the view to a window of the present tensor.
func (g Geometry) window(top, left, height, width int) Geometry {
	g.Top += top
	g.Left += left
	g.OutputHeight, g.OutputWidth = height, width
	return g
}
