package vit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/torch"
)

// Leaves gives the leaves of forward's answer that count: those that output.leaves names, in that order, or
// all of them. A name that the answer does not have is an ErrOutput.
func (m *Model) Leaves(answer any) ([]Output, error) {
	return pick(answer, m.meta.Output.Leaves)
}

// Recognize gives the kind of forward's answer and the leaves that count: the kind that output.kind names,
// else the one that the form of the answer tells; the leaves that output.leaves names, else those of the
// kind, in the order that [Recognize] gives. input is the shape of forward's input, (B, 3, H, W), or nil.
func (m *Model) Recognize(answer any, input []int64) (kind string, leaves []Output, err error) {
	fail := func(err error) (string, []Output, error) { return "", nil, fmt.Errorf("%s: %w", m.name, err) }
	if leaves, err = m.Leaves(answer); err != nil {
		return fail(err)
	}
	kind = m.meta.Output.Kind
	if kind == "" || len(m.meta.Output.Leaves) == 0 {
		var names []string
		if kind, names, err = recognize(m.meta.Task, kind, leaves, answer, input); err != nil {
			return fail(err)
		}
		if leaves, err = pick(answer, names); err != nil {
			return fail(err)
		}
	}
	if err = m.checkLabels(kind, leaves); err != nil {
		return fail(err)
	}
	return kind, leaves, nil
}

// checkLabels refuses labels of other classes: a name that is one place off is worse than none.
func (m *Model) checkLabels(kind string, leaves []Output) error {
	if len(m.meta.Labels) == 0 || len(leaves) == 0 {
		return nil
	}
	logits, _ := leaves[0].Value.(*torch.Tensor)
	if logits == nil {
		return nil
	}
	shape, got := logits.Shape(), len(m.meta.Labels)
	var want int
	switch {
	case kind == OutputLogits && len(shape) == 2:
		want = int(shape[1])
	case (kind == OutputSegmentationLogits || kind == OutputHeadLogits) && len(shape) == 4:
		want = int(shape[1])
		if want == 1 && got == 2 { // a binary mask, with a name for its background
			return nil
		}
	case kind == OutputSetPrediction && len(shape) == 3:
		want = int(shape[2]) - 1 // the last is no object
	case kind == OutputSetPredictionSigmoid && len(shape) == 3:
		want = int(shape[2])
	default:
		return nil
	}
	if got == want {
		return nil
	}
	return fmt.Errorf("%w: got %d labels for %s, want one for each of %d classes (labels, --labels)", ErrOutput, got, Form(logits), want)
}

// pick finds leaves by name; no names are all.
func pick(answer any, names []string) ([]Output, error) {
	all := Outputs(answer)
	if len(names) == 0 {
		return all, nil
	}
	picked := make([]Output, len(names))
	for i, name := range names {
		at := slices.IndexFunc(all, func(o Output) bool { return o.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("%w: got %s, want a leaf %s in it (output.leaves, --leaves); it has %s", ErrOutput, Form(answer), name, leafNames(all))
		}
		picked[i] = all[at]
	}
	return picked, nil
}

func leafNames(all []Output) string {
	if len(all) == 0 {
		return "none"
	}
	const shown = 12
	var names []string
	for _, o := range all[:min(shown, len(all))] {
		names = append(names, o.Name)
	}
	if len(all) > shown {
		names = append(names, fmt.Sprintf("... (%d)", len(all)))
	}
	return strings.Join(names, ", ")
}

// Recognize finds the kind of forward's answer from its form, among those of a task, and the names of the
// leaves that count. input is the shape of forward's input, (B, 3, H, W), or nil where there is none.
//
//   - OutputLogits, OutputSegmentationLogits, OutputHeadLogits: one leaf, the logits. Of several that fit, the
//     one called logits or out, else the first: DeiT's tuple starts with the mean of its two heads.
//   - OutputClassMap: one leaf, of integers.
//   - OutputDetections: boxes, labels, scores and perhaps masks, photo by photo. It knows torchvision's
//     (losses, list of dicts), that list, one dict, and the tuple (boxes, labels, scores[, masks]) of a trace,
//     in any order.
//   - OutputSetPrediction: logits, boxes. The sigmoid kind has the same form; it must be named.
//   - OutputYOLO, OutputYOLOEnd2End: one leaf. (B, N, 6) is the second, (B, 4+C, A) with more anchors than rows
//     the first.
//   - OutputYOLOGrid: the levels.
//   - OutputFeatures: every tensor of floats of three or four dimensions.
//
// What fits none is an ErrOutput that says what the answer looks like.
func Recognize(task string, answer any, input []int64) (kind string, leaves []string, err error) {
	return recognize(task, "", Outputs(answer), answer, input)
}

// recognize looks among the leaves; a kind that is known already leaves no choice.
func recognize(task, known string, leaves []Output, answer any, input []int64) (string, []string, error) {
	kinds, ok := outputKinds[task]
	if !ok {
		return "", nil, fmt.Errorf("%w: got task %s, want classification, segmentation, segmentation_head, detection or features", ErrTask, quote(task))
	}
	a := newForms(leaves, input)
	for _, kind := range kinds {
		if known != "" && kind != known {
			continue
		}
		names, hint := a.find(kind, known != "")
		if hint != "" {
			return "", nil, fmt.Errorf("%w: got %s, %s", ErrOutput, Form(answer), hint)
		}
		if names != nil {
			return kind, names, nil
		}
	}
	if known != "" {
		return "", nil, fmt.Errorf("%w: got %s, want %s as output.kind says; --leaves (output.leaves) names the tensors that count, of %s",
			ErrOutput, Form(answer), known, leafNames(leaves))
	}
	return "", nil, fmt.Errorf("%w: got %s, which looks like no output for %s; --output-kind (output.kind: %s) says what it is and --leaves (output.leaves, of %s) which tensors count",
		ErrOutput, Form(answer), task, strings.Join(kinds, ", "), leafNames(leaves))
}

// leafForm is a tensor among the leaves.
type leafForm struct {
	Output
	tensor *torch.Tensor
	shape  []int64
	float  bool
}

// key is the last part of the leaf's name.
func (l *leafForm) key() string { return l.Name[strings.LastIndexByte(l.Name, '.')+1:] }

func (l *leafForm) isFloat(dims int) bool { return l.float && len(l.shape) == dims }

// forms are the tensors of an answer.
type forms struct {
	list  []leafForm
	batch int64 // 0 where it is not known
}

func newForms(leaves []Output, input []int64) *forms {
	f := &forms{}
	if len(input) == 4 {
		f.batch = input[0]
	}
	for _, o := range leaves {
		t, ok := o.Value.(*torch.Tensor)
		if !ok || t == nil {
			continue
		}
		f.list = append(f.list, leafForm{o, t, t.Shape(), t.DType().IsFloatingPoint()})
	}
	return f
}

func isInteger(d torch.DType) bool {
	switch d {
	case torch.Int64, torch.Int32, torch.Int16, torch.Int8, torch.Uint8:
		return true
	}
	return false
}

// find gives the leaves of a kind, nil where the answer does not have its form; a hint says why the answer
// is none that this package reads.
func (f *forms) find(kind string, known bool) (names []string, hint string) {
	switch kind {
	case OutputLogits:
		return f.one(func(l *leafForm) bool { return l.isFloat(2) && f.batched(l) }), ""
	case OutputSegmentationLogits, OutputHeadLogits:
		if !known && f.masksOfQueries() {
			return nil, "which looks like MaskFormer's classes and masks of queries, and no kind of output reads them"
		}
		return f.one(func(l *leafForm) bool { return l.isFloat(4) && f.batched(l) }), ""
	case OutputClassMap:
		return f.one(func(l *leafForm) bool {
			return isInteger(l.tensor.DType()) && f.batched(l) && (len(l.shape) == 3 || len(l.shape) == 4 && l.shape[1] == 1)
		}), ""
	case OutputDetections:
		return f.detections(), ""
	case OutputSetPrediction, OutputSetPredictionSigmoid:
		return f.setPrediction(), ""
	case OutputYOLO:
		out := f.one(func(l *leafForm) bool {
			return l.isFloat(3) && f.batched(l) && l.shape[1] > 4 && (known || l.shape[1] < l.shape[2] && l.shape[2] != 6)
		})
		if out != nil && !known && f.count(func(l *leafForm) bool { return l.isFloat(4) && l.shape[1] == 32 }) == 1 {
			return nil, "which looks like a YOLO for masks, (B, 4+C+32, A) and 32 prototypes, and no kind of output reads it"
		}
		return out, ""
	case OutputYOLOEnd2End:
		return f.one(func(l *leafForm) bool { return l.isFloat(3) && f.batched(l) && l.shape[2] == 6 }), ""
	case OutputYOLOGrid:
		if f.count(func(l *leafForm) bool { return l.isFloat(4) && f.batched(l) && l.shape[1] > 5 }) == len(f.list) {
			return f.all(), ""
		}
	case OutputFeatures:
		return f.all(func(l *leafForm) bool { return l.isFloat(3) || l.isFloat(4) }), ""
	}
	return nil, ""
}

func (f *forms) batched(l *leafForm) bool {
	return f.batch == 0 || len(l.shape) > 0 && l.shape[0] == f.batch
}

// one is the leaf that fits: the one called logits or out before the first.
func (f *forms) one(fits func(*leafForm) bool) []string {
	name := ""
	for i := range f.list {
		l := &f.list[i]
		if !fits(l) {
			continue
		}
		if k := l.key(); l.Name != "out" && (k == "logits" || k == "out") {
			return []string{l.Name}
		}
		if name == "" {
			name = l.Name
		}
	}
	if name == "" {
		return nil
	}
	return []string{name}
}

func (f *forms) all(fits ...func(*leafForm) bool) (names []string) {
	for i := range f.list {
		if len(fits) == 0 || fits[0](&f.list[i]) {
			names = append(names, f.list[i].Name)
		}
	}
	return names
}

func (f *forms) count(fits func(*leafForm) bool) int { return len(f.all(fits)) }

// masksOfQueries tells MaskFormer's answer: classes (B, Q, C+1) and masks (B, Q, h, w), named by no key.
func (f *forms) masksOfQueries() bool {
	for i := range f.list {
		classes := &f.list[i]
		if !classes.isFloat(3) {
			continue
		}
		for j := range f.list {
			masks := &f.list[j]
			if k := masks.key(); masks.isFloat(4) && k != "out" && k != "logits" && slices.Equal(masks.shape[:2], classes.shape[:2]) {
				return true
			}
		}
	}
	return false
}

// detections finds dicts of boxes, labels and scores, or the tuple of a trace.
func (f *forms) detections() (names []string) {
	type photo map[string]string
	photos := map[string]photo{}
	var order []string
	for i := range f.list {
		l := &f.list[i]
		switch k := l.key(); k {
		case "boxes", "labels", "scores", "masks":
			parent := strings.TrimSuffix(l.Name, "."+k)
			if photos[parent] == nil {
				photos[parent] = photo{}
				order = append(order, parent)
			}
			photos[parent][k] = l.Name
		}
	}
	for _, parent := range order {
		p := photos[parent]
		if p["boxes"] == "" || p["labels"] == "" || p["scores"] == "" {
			return nil
		}
		names = append(names, p["boxes"], p["labels"], p["scores"])
		if p["masks"] != "" {
			names = append(names, p["masks"])
		}
	}
	if names != nil {
		return names
	}
	var boxes, labels, scores, masks *leafForm
	for i := range f.list {
		l := &f.list[i]
		switch {
		case boxes == nil && l.isFloat(2) && l.shape[1] == 4:
			boxes = l
		case labels == nil && len(l.shape) == 1 && isInteger(l.tensor.DType()):
			labels = l
		case scores == nil && l.isFloat(1):
			scores = l
		case masks == nil && l.isFloat(4) && l.shape[1] == 1:
			masks = l
		}
	}
	if boxes == nil || labels == nil || scores == nil || boxes.shape[0] != labels.shape[0] || boxes.shape[0] != scores.shape[0] {
		return nil
	}
	names = []string{boxes.Name, labels.Name, scores.Name}
	if masks != nil && masks.shape[0] == boxes.shape[0] {
		names = append(names, masks.Name)
	}
	return names
}

// setPrediction finds logits (B, Q, C+1) and boxes (B, Q, 4), in either order.
func (f *forms) setPrediction() []string {
	var logits, boxes *leafForm
	for i := range f.list { // by name first
		l := &f.list[i]
		switch k := l.key(); {
		case !l.isFloat(3) || !f.batched(l):
		case k == "logits" || k == "pred_logits":
			logits = l
		case k == "pred_boxes" && l.shape[2] == 4:
			boxes = l
		}
	}
	if logits != nil && boxes != nil && slices.Equal(logits.shape[:2], boxes.shape[:2]) {
		return []string{logits.Name, boxes.Name}
	}
	// The first two that have the same queries, one of them four numbers for each.
	for i := range f.list {
		a := &f.list[i]
		if !a.isFloat(3) || !f.batched(a) {
			continue
		}
		for j := i + 1; j < len(f.list); j++ {
			b := &f.list[j]
			if !b.isFloat(3) || !slices.Equal(a.shape[:2], b.shape[:2]) || a.shape[2] != 4 && b.shape[2] != 4 {
				continue
			}
			// With three classes both have four columns: boxes are shares, 0 to 1.
			if b.shape[2] != 4 || a.shape[2] == 4 && areShares(a.tensor) && !areShares(b.tensor) {
				a, b = b, a
			}
			return []string{a.Name, b.Name}
		}
	}
	return nil
}

// areShares tells whether all values lie in 0 to 1.
func areShares(t *torch.Tensor) bool {
	for _, bound := range []struct {
		op   string
		fits func(float64) bool
	}{
		{"aten::amin", func(v float64) bool { return v >= 0 }},
		{"aten::amax", func(v float64) bool { return v <= 1 }},
	} {
		v, err := torch.CallTensor(context.Background(), bound.op, t)
		if err != nil {
			return false // of no elements
		}
		item, err := v.Item()
		v.Close()
		if x, ok := item.(float64); err != nil || !ok || !bound.fits(x) {
			return false
		}
	}
	return true
}

// Form says in one line what a method's answer looks like: "a tuple of (tensor float32 [1, 100, 92], tensor
// float32 [1, 100, 4])".
func Form(answer any) string {
	const limit = 600
	var b strings.Builder
	writeForm(&b, answer, 0)
	return clip(b.String(), limit)
}

func writeForm(b *strings.Builder, v any, depth int) {
	const shown = 8
	items := func(name, open, end string, n int, item func(int)) {
		if n == 0 {
			b.WriteString("an empty " + name)
			return
		}
		b.WriteString("a " + name + " of " + open)
		for i := range min(n, shown) {
			if i > 0 {
				b.WriteString(", ")
			}
			item(i)
		}
		if n > shown {
			fmt.Fprintf(b, ", ... (%d)", n)
		}
		b.WriteString(end)
	}
	if depth > maxNesting {
		b.WriteString("...")
		return
	}
	each := func(list []any) func(int) {
		return func(i int) { writeForm(b, list[i], depth+1) }
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("none")
	case *torch.Tensor:
		if v == nil {
			b.WriteString("none")
			return
		}
		b.WriteString("tensor " + v.DType().String() + " " + strings.ReplaceAll(fmt.Sprint(v.Shape()), " ", ", "))
	case torch.Tuple:
		items("tuple", "(", ")", len(v), each(v))
	case torch.List:
		items("list", "[", "]", len(v), each(v))
	case []*torch.Tensor:
		items("list", "[", "]", len(v), func(i int) { writeForm(b, v[i], depth+1) })
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		items("dict", "{", "}", len(keys), func(i int) {
			b.WriteString(quote(keys[i]) + ": ")
			writeForm(b, v[keys[i]], depth+1)
		})
	case map[int64]any:
		keys := make([]int64, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		items("dict", "{", "}", len(keys), func(i int) {
			b.WriteString(strconv.FormatInt(keys[i], 10) + ": ")
			writeForm(b, v[keys[i]], depth+1)
		})
	case []bool:
		fmt.Fprintf(b, "a list of %d bools", len(v))
	case []int64:
		fmt.Fprintf(b, "a list of %d ints", len(v))
	case []float64:
		fmt.Fprintf(b, "a list of %d floats", len(v))
	case []string:
		fmt.Fprintf(b, "a list of %d strings", len(v))
	case bool:
		b.WriteString("a bool")
	case int64:
		b.WriteString("an int")
	case float64:
		b.WriteString("a float")
	case string:
		b.WriteString("a string")
	default:
		fmt.Fprintf(b, "%T", v)
	}
}
