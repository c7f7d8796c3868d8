package dataset

import "strings"

// Names finds classes by name: as it stands; else without case and with any other sign for a space; else by the part
// before a comma, as ImageNet's labels have several names. What two classes share finds none.
type Names [3]map[string]int

// shared marks a name of two classes.
const shared = -1

// NamesOf makes Names of labels.
func NamesOf(labels []string) Names {
	n := Names{{}, {}, {}}
	for i, label := range labels {
		first, _, _ := strings.Cut(label, ",")
		for form, key := range [3]string{label, plainName(label), plainName(first)} {
			if other, twice := n[form][key]; twice && other != i {
				n[form][key] = shared
				continue
			}
			n[form][key] = i
		}
	}
	return n
}

// Find gives the index of the label.
func (n Names) Find(name string) (int, bool) {
	for form, key := range [3]string{name, plainName(name), plainName(name)} {
		if i, ok := n[form][key]; ok && i != shared {
			return i, true
		}
	}
	return 0, false
}

// plainName is a name in lower case, with one space for everything between its letters and digits.
func plainName(name string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r > 127)
	}), " ")
}
