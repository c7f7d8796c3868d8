package annotate

import (
	"image/color"
	"math"
	"sync"
)

// Distinct gives colour i of a fixed list of 256 colours that are easy to tell
// apart and to see on a photo; after 256 it starts again. The first colours are
// the most different.
func Distinct(i int) color.RGBA {
	list := distinct()
	i %= len(list)
	if i < 0 {
		i += len(list)
	}
	return list[i]
}

// distinct picks, one after the other, the colour that is farthest from all that
// were picked before, in OKLab, where distance is near to what the eye sees.
// Dark, pale and grey colours are left out, because a photo is full of them, and
// glaring ones.
var distinct = sync.OnceValue(func() []color.RGBA {
	type candidate struct {
		rgb     color.RGBA
		lab     [3]float64
		nearest float64
	}
	var all []candidate
	for r := 0; r < 256; r += 15 {
		for g := 0; g < 256; g += 15 {
			for b := 0; b < 256; b += 15 {
				c := color.RGBA{R: uint8(r), G: uint8(g), B: uint8(b), A: 255}
				lab := oklab(c)
				chroma := math.Hypot(lab[1], lab[2])
				if lab[0] >= 0.55 && lab[0] <= 0.9 && chroma >= 0.12 && chroma <= 0.25 {
					all = append(all, candidate{c, lab, math.Inf(1)})
				}
			}
		}
	}
	list := make([]color.RGBA, 0, 256)
	pick := color.RGBA{R: 240, G: 60, B: 45, A: 255}
	for len(list) < 256 {
		list = append(list, pick)
		lab := oklab(pick)
		far := -1.0
		for i := range all {
			c := &all[i]
			// Hue tells classes apart better than lightness does.
			dl, da, db := 0.7*(c.lab[0]-lab[0]), c.lab[1]-lab[1], c.lab[2]-lab[2]
			c.nearest = min(c.nearest, dl*dl+da*da+db*db)
			if c.nearest > far {
				far, pick = c.nearest, c.rgb
			}
		}
	}
	return list
})

// oklab converts to Björn Ottosson's OKLab: lightness in [0, 1], then the two
// axes of colour.
func oklab(c color.RGBA) [3]float64 {
	r, g, b := linear(c.R), linear(c.G), linear(c.B)
	l := math.Cbrt(0.4122214708*r + 0.5363325363*g + 0.0514459929*b)
	m := math.Cbrt(0.2119034982*r + 0.6806995451*g + 0.1073969566*b)
	s := math.Cbrt(0.0883024619*r + 0.2817188376*g + 0.6299787005*b)
	return [3]float64{
		0.2104542553*l + 0.7936177850*m - 0.0040720468*s,
		1.9779984951*l - 2.4285922050*m + 0.4505937099*s,
		0.0259040371*l + 0.7827717662*m - 0.8086757660*s,
	}
}
