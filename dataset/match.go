package dataset

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// LeftOut is the class of what Match was told to leave out.
const LeftOut = -1

// ErrGiven: what Match was told makes no sense.
var ErrGiven = errors.New("wrong classes")

// Match gives a model's class for each of the set's classes, LeftOut for those that do not count, by the names
// of labels: as they stand; else without case and with any other sign for a space; else by the part before a
// comma, as ImageNet's labels have several names. The result is nil where the set's classes are the model's.
//
// given says what the names do not: NAME=LABEL, with a name or number on either side and nothing on the right
// to leave a class out; or only "index", by place, or "id", by COCO's ids. The errors are ErrClass, which names
// the classes that are none of the labels, and ErrGiven.
func (s *Set) Match(labels []string, given ...string) ([]int, error) {
	classes := make([]int, len(s.Classes))
	places := func(i int) int { return i }
	ids := func(i int) int {
		if i < len(s.IDs) {
			return int(s.IDs[i])
		}
		return i
	}
	by := func(place func(int) int) ([]int, error) {
		for i := range classes {
			if classes[i] = place(i); len(labels) > 0 && classes[i] >= len(labels) {
				return nil, fmt.Errorf("classes: %w: the data set's %s is number %d, and the model has %d labels", ErrClass, s.Classes[i], classes[i], len(labels))
			}
		}
		return classes, nil
	}
	switch {
	case len(given) == 1 && given[0] == "index":
		return by(places)
	case len(given) == 1 && given[0] == "id":
		return by(ids)
	case len(s.Classes) == 0 && len(given) == 0:
		return nil, nil
	case len(labels) == 0 && len(given) == 0:
		return by(ids)
	}
	table, err := givenClasses(s, labels, given)
	if err != nil {
		return nil, err
	}
	names := NamesOf(labels)
	var unknown []string
	for i, class := range s.Classes {
		if c, ok := table[i]; ok {
			classes[i] = c
		} else if c, ok := names.Find(class); ok {
			classes[i] = c
		} else {
			unknown = append(unknown, class)
		}
	}
	if len(unknown) == len(classes) && len(classes) == len(labels) && wordNetIDs(s.Classes) {
		return by(places) // ImageNet's folders, in the order of its classes
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%w: %d of the data set's %d classes are none of the model's labels: %s; say --classes %q with the model's label, or %q to leave it out; the labels are %s",
			ErrClass, len(unknown), len(classes), shortList(unknown, 20), unknown[0]+"=LABEL", unknown[0]+"=", shortList(labels, 20))
	}
	return classes, nil
}

// givenClasses reads NAME=LABEL.
func givenClasses(set *Set, labels, given []string) (map[int]int, error) {
	table := map[int]int{}
	of, names := NamesOf(set.Classes), NamesOf(labels)
	for _, text := range given {
		name, label, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("classes %s: %w: want NAME=LABEL, index or id", text, ErrGiven)
		}
		class, ok := of.Find(name)
		if n, err := strconv.Atoi(name); !ok && err == nil && n >= 0 && n < len(set.Classes) {
			class, ok = n, true
		}
		if !ok {
			return nil, fmt.Errorf("classes %s: %w: the data set has no class %s; it has %s", text, ErrGiven, name, shortList(set.Classes, 20))
		}
		if label == "" {
			table[class] = LeftOut
			continue
		}
		c, ok := names.Find(label)
		if n, err := strconv.Atoi(label); !ok && err == nil && n >= 0 && (n < len(labels) || len(labels) == 0) {
			c, ok = n, true
		}
		if !ok {
			return nil, fmt.Errorf("classes %s: %w: the model has no label %s; it has %s", text, ErrGiven, label, shortList(labels, 20))
		}
		table[class] = c
	}
	return table, nil
}

// wordNetIDs tells whether names are ImageNet's folders: n01440764.
func wordNetIDs(names []string) bool {
	for _, name := range names {
		if len(name) != 9 || name[0] != 'n' || strings.Trim(name[1:], "0123456789") != "" {
			return false
		}
	}
	return len(names) > 0
}

// shortList joins the first names.
func shortList(names []string, most int) string {
	switch {
	case len(names) == 0:
		return "not in the file"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(", ... (%d)", len(names))
	}
	return strings.Join(names, ", ")
}
