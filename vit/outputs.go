package vit

import (
	"slices"
	"strconv"

	"github.com/torchvit/torchvit/torch"
)

// Output is one leaf of a method's answer: a *torch.Tensor, bool, int64, float64, string or nil.
type Output struct {
	// Name tells its place: "out", "out.0", "out.1.0.boxes".
	Name  string
	Value any
}

// Outputs names the leaves of a method's answer by their place, in order; the entries of a dict in the
// order of their keys. Files of the command line and references use these names.
func Outputs(answer any) []Output {
	var list []Output
	var walk func(name string, v any)
	items := func(name string, n int, at func(int) any) {
		for i := range n {
			walk(name+"."+strconv.Itoa(i), at(i))
		}
	}
	walk = func(name string, v any) {
		switch v := v.(type) {
		case torch.Tuple:
			items(name, len(v), func(i int) any { return v[i] })
		case torch.List:
			items(name, len(v), func(i int) any { return v[i] })
		case []*torch.Tensor:
			items(name, len(v), func(i int) any { return tensorOrNil(v[i]) })
		case []bool:
			items(name, len(v), func(i int) any { return v[i] })
		case []int64:
			items(name, len(v), func(i int) any { return v[i] })
		case []float64:
			items(name, len(v), func(i int) any { return v[i] })
		case []string:
			items(name, len(v), func(i int) any { return v[i] })
		case map[string]any:
			keys := make([]string, 0, len(v))
			for k := range v {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for _, k := range keys {
				walk(name+"."+k, v[k])
			}
		case map[int64]any:
			keys := make([]int64, 0, len(v))
			for k := range v {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for _, k := range keys {
				walk(name+"."+strconv.FormatInt(k, 10), v[k])
			}
		case *torch.Tensor:
			list = append(list, Output{name, tensorOrNil(v)})
		default:
			list = append(list, Output{name, v})
		}
	}
	walk("out", answer)
	return list
}

// tensorOrNil turns an undefined tensor into a plain nil.
func tensorOrNil(t *torch.Tensor) any {
	if t == nil {
		return nil
	}
	return t
}
