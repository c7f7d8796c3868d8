package vit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/transforms"
)

// Description is what is known of a model file, part by part, and who said it. Several files may speak of one
// model; the first of these that knows a part has it:
//
//   - what [Description.Set] gave, as flags do
//   - torchvit.json inside the file
//   - MODEL.json beside it, in the same format
//   - ultralytics' config.txt inside it
//   - preprocessor_config.json or processor_config.json beside it, as Hugging Face's transformers write them
//   - config.json beside it, transformers' or timm's
//   - the signature of forward in the file's own code
//
// The preprocess of a file is one part: that of two files is never mixed.
type Description struct {
	// Path is the model file.
	Path string
	// Notes are about what was found and could not be used, one line each.
	Notes []string

	meta Metadata
	from map[string]string
}

// The names of sources other than files.
const (
	sourceForward = "forward's signature"
)

// fields are the parts of a description that have a source of their own.
var fields = []struct {
	name string
	copy func(to, from *Metadata)
}{
	{"task", func(to, from *Metadata) { to.Task = from.Task }},
	{"architecture", func(to, from *Metadata) { to.Architecture = from.Architecture }},
	{"torch", func(to, from *Metadata) { to.Torch = from.Torch }},
	{"input.size", func(to, from *Metadata) { to.Input.Size = from.Input.Size }},
	{"input.multiple_of", func(to, from *Metadata) { to.Input.MultipleOf = from.Input.MultipleOf }},
	{"input.dynamic", func(to, from *Metadata) { to.Input.Dynamic = from.Input.Dynamic }},
	{"input.channel_order", func(to, from *Metadata) { to.Input.ChannelOrder = from.Input.ChannelOrder }},
	{"input.layout", func(to, from *Metadata) { to.Input.Layout = from.Input.Layout }},
	{"input.blocks", func(to, from *Metadata) { to.Input.Blocks = from.Input.Blocks }},
	{"preprocess", func(to, from *Metadata) { to.Preprocess = from.Preprocess }},
	{"tokens.patch_size", func(to, from *Metadata) { to.tokens().PatchSize = from.Tokens.PatchSize }},
	{"tokens.prefix", func(to, from *Metadata) { to.tokens().Prefix = from.Tokens.Prefix }},
	{"tokens.num_heads", func(to, from *Metadata) { to.tokens().NumHeads = from.Tokens.NumHeads }},
	{"tokens.depth", func(to, from *Metadata) { to.tokens().Depth = from.Tokens.Depth }},
	{"tokens.embed_dim", func(to, from *Metadata) { to.tokens().EmbedDim = from.Tokens.EmbedDim }},
	{"output.kind", func(to, from *Metadata) { to.Output.Kind = from.Output.Kind }},
	{"output.leaves", func(to, from *Metadata) { to.Output.Leaves = from.Output.Leaves }},
	{"output.anchors", func(to, from *Metadata) { to.Output.Anchors = from.Output.Anchors }},
	{"output.activation", func(to, from *Metadata) { to.Output.Activation = from.Output.Activation }},
	{"labels", func(to, from *Metadata) { to.Labels = from.Labels }},
	{"palette", func(to, from *Metadata) { to.Palette = from.Palette }},
	{"thresholds.score", func(to, from *Metadata) { to.thresholds().Score = from.Thresholds.Score }},
	{"thresholds.iou", func(to, from *Metadata) { to.thresholds().IoU = from.Thresholds.IoU }},
	{"thresholds.mask", func(to, from *Metadata) { to.thresholds().Mask = from.Thresholds.Mask }},
	{"training", func(to, from *Metadata) { to.Training = from.Training }},
	{"reference", func(to, from *Metadata) { to.Reference = from.Reference }},
}

// tokens makes the part a copy of its own, so that it can be changed.
func (m *Metadata) tokens() *Tokens {
	t := Tokens{}
	if m.Tokens != nil {
		t = *m.Tokens
	}
	m.Tokens = &t
	return m.Tokens
}

func (m *Metadata) thresholds() *Thresholds {
	t := Thresholds{}
	if m.Thresholds != nil {
		t = *m.Thresholds
	}
	m.Thresholds = &t
	return m.Thresholds
}

// partial is what one source knows.
type partial struct {
	Metadata
	known []string
	notes []string
}

// know says that the source has these fields.
func (p *partial) know(fields ...string) { p.known = append(p.known, fields...) }

func (p *partial) note(format string, args ...any) {
	p.notes = append(p.notes, clip(fmt.Sprintf(format, args...), 400))
}

// Describe reads all that is known of a model file, without libtorch. A torchvit.json or MODEL.json that is
// not valid is an error (ErrMetadata); other programs' files that cannot be used are notes.
func Describe(path string) (*Description, error) {
	archive, err := jit.OpenArchive(path)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err) // it names the path
	}
	defer archive.Close()
	d := &Description{Path: path, from: map[string]string{}}
	if err := d.read(archive); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return d, nil
}

func (d *Description) read(archive *jit.Archive) error {
	inside := func(name string) ([]byte, error) { return archive.ReadExtra(name) }
	dir := filepath.Dir(d.Path)
	beside := func(name string) ([]byte, error) { return readBeside(filepath.Join(dir, name)) }
	for _, s := range []struct {
		name  string
		open  func(name string) ([]byte, error)
		parse func(text []byte) (*partial, error)
	}{
		{MetadataFile, inside, partOfMetadata},
		{filepath.Base(d.Path) + ".json", beside, partOfMetadata},
		{ultralyticsFile, inside, partOfUltralytics},
		{preprocessorFile, beside, partOfPreprocessor},
		{processorFile, beside, partOfProcessor},
		{configFile, beside, partOfConfig},
	} {
		text, err := s.open(s.name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var p *partial
		if err == nil {
			p, err = s.parse(text)
		}
		switch {
		case err == nil:
			d.merge(s.name, p)
		case errors.Is(err, ErrMetadata):
			return fmt.Errorf("%s: %w", s.name, err)
		default:
			d.note(s.name, "%v", err)
		}
	}
	d.readForward(archive)
	return nil
}

func (d *Description) note(source, format string, args ...any) {
	text := strings.TrimPrefix(fmt.Sprintf(format, args...), source+": ")
	text = strings.Join(strings.FieldsFunc(text, unicode.IsControl), " ")
	d.Notes = append(d.Notes, clip(source+": "+text, 500))
}

// readBeside reads a small file.
func readBeside(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("got no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMetadata+1))
	if err == nil && len(text) > maxMetadata {
		err = fmt.Errorf("got more than %d bytes", maxMetadata)
	}
	return text, err
}

// readForward learns from the code of the file how it takes its input, and knows torchvision's detectors.
func (d *Description) readForward(archive *jit.Archive) {
	parameters, result, err := archive.Signature("forward")
	if err != nil || len(parameters) == 0 {
		return
	}
	p := &partial{}
	list := parameters[0] == "List[Tensor]"
	if list && strings.HasSuffix(result, "List[Dict[str, Tensor]]]") || result == "List[Dict[str, Tensor]]" {
		p.Task, p.Output.Kind = TaskDetection, OutputDetections
		p.know("task", "output.kind")
	}
	if task := cmp.Or(d.meta.Task, p.Task); task == TaskDetection || task == "" {
		switch {
		case list:
			p.Input.Layout = LayoutList
			p.know("input.layout")
		case parameters[0] == "Tensor":
			p.Input.Layout = LayoutBatch
			p.know("input.layout")
		}
	}
	d.merge(sourceForward, p)
}

// merge takes what a weaker source knows and no other did.
func (d *Description) merge(source string, p *partial) {
	for _, text := range p.notes {
		d.note(source, "%s", text)
	}
	for _, f := range fields {
		if d.from[f.name] != "" || !slices.Contains(p.known, f.name) {
			continue
		}
		next := d.meta
		f.copy(&next, &p.Metadata)
		if err := next.holdsTogether(); err != nil {
			if source != sourceForward {
				d.note(source, "%v: left out", err)
			}
			continue
		}
		d.meta, d.from[f.name] = next, source
	}
}

// holdsTogether is validate for a description that is not whole yet.
func (m Metadata) holdsTogether() error {
	m.Format = MetadataFormat
	if m.Task == "" {
		m.Task = TaskClassification
		for task, kinds := range outputKinds {
			if slices.Contains(kinds, m.Output.Kind) {
				m.Task = task
			}
		}
	}
	if m.Tokens != nil && m.Tokens.PatchSize == nil {
		m.Tokens = nil
	}
	if m.Output.Kind == OutputYOLOGrid && m.Output.Anchors == nil {
		m.Output.Kind = ""
	}
	return m.validate()
}

// Set gives a part of the description, against all files: field is its place in torchvit.json, as
// "preprocess.mean", source who says it, as "--mean", and change writes it.
func (d *Description) Set(source, field string, change func(*Metadata)) {
	switch {
	case strings.HasPrefix(field, "tokens."):
		d.meta.tokens()
	case strings.HasPrefix(field, "thresholds."):
		d.meta.thresholds()
	}
	task := d.meta.Task
	change(&d.meta)
	d.from[field] = source
	if field == "task" && task != d.meta.Task && !slices.Contains(outputKinds[d.meta.Task], d.meta.Output.Kind) {
		d.meta.Output.Kind = "" // it was the other task's
		delete(d.from, "output.kind")
	}
}

// Known is the description as far as it goes: zero values stand where nobody gave a part.
func (d *Description) Known() Metadata { return d.meta }

// Source says who gave a part, by its place in torchvit.json: a file's name, or what [Description.Set] was
// told; "" where nobody did.
func (d *Description) Source(field string) string { return d.from[field] }

// Fields are the places in torchvit.json that somebody gave, in its order, and then those within preprocess
// that [Description.Set] was told.
func (d *Description) Fields() []string {
	var names, inner []string
	for _, f := range fields {
		if d.from[f.name] != "" {
			names = append(names, f.name)
		}
	}
	for name := range d.from {
		if strings.HasPrefix(name, "preprocess.") {
			inner = append(inner, name)
		}
	}
	slices.Sort(inner)
	return append(names, inner...)
}

// Metadata is the description as a whole. task is that of a file of which nothing says it; where that is ""
// too, the error is ErrNoMetadata. A description that does not hold together is an ErrMetadata.
func (d *Description) Metadata(task string) (*Metadata, error) {
	m := d.meta
	m.Format = MetadataFormat
	if m.Task == "" {
		m.Task = task
	}
	if m.Task == "" {
		found := "no " + MetadataFile + " inside and no " + filepath.Base(d.Path) + ".json beside it"
		if len(d.from) > 0 {
			found = "nothing that says its task"
		}
		return nil, fmt.Errorf("load %s: %w: got %s; say --task (vit.Options.Task), write %s.json, or make a file that describes itself with `scripts/export.py`%s",
			d.Path, ErrNoMetadata, found, d.Path, d.notes())
	}
	if m.Tokens != nil && m.Tokens.PatchSize == nil {
		m.Tokens = nil
		for _, name := range []string{"tokens.prefix", "tokens.depth"} {
			if strings.HasPrefix(d.from[name], "--") {
				return nil, fmt.Errorf("load %s: %w: got %s without the size of the patches: say --patch-size too", d.Path, ErrNoMetadata, d.from[name])
			}
		}
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("load %s: %w", d.Path, err)
	}
	return &m, nil
}

func (d *Description) notes() string {
	if len(d.Notes) == 0 {
		return ""
	}
	return " (" + strings.Join(d.Notes, "; ") + ")"
}

// Missing is a part of a description that a task would use and nobody gave.
type Missing struct {
	// Field is its place in torchvit.json.
	Field string `json:"field"`
	// Flags are those of the command line that give it; "" where only torchvit.json does.
	Flags string `json:"flags,omitempty"`
	// Why says what it is for.
	Why string `json:"why"`
	// Needed says that the task does not work without.
	Needed bool `json:"needed"`
}

// TaskAttention is what `torchvit attend` does with a ViT's file of any task: see [Description.Missing].
const TaskAttention = "attention"

// Missing lists what a task, one of the Task constants, lacks.
func (d *Description) Missing(task string) []Missing {
	var list []Missing
	lack := func(needed bool, field, flags, why string) {
		if d.from[field] == "" {
			list = append(list, Missing{field, flags, why, needed})
		}
	}
	photos := task != TaskSegmentationHead
	if task == TaskDetection {
		m := d.meta
		m.Task = task
		photos = m.Layout() != LayoutList // such detectors take photos as they are
	}
	if photos && d.from["preprocess"] == "" {
		lack(true, "preprocess.resize", "--size (or --resize with --resize-size)", "to what size photos are resized")
		lack(true, "preprocess.normalize", "--mean with --std (or --normalize none)", "what becomes of the pixels' levels")
	}
	switch task {
	case TaskClassification, TaskSegmentation, TaskDetection:
		lack(false, "labels", "--labels", "the classes' names")
	case TaskAttention:
		lack(true, "tokens.patch_size", "--patch-size", "how large a patch is")
		lack(true, "tokens.prefix", "--prefix-tokens", "how many tokens stand before the patches")
		lack(false, "tokens.depth", "--depth", "how many blocks there are")
	}
	if task == TaskDetection && d.meta.Output.Kind == OutputYOLOGrid {
		lack(true, "output.anchors", "", "the anchors of each level")
	}
	return list
}

// Need gives ErrNoMetadata where the task lacks a part that it cannot do without, with what to type.
func (d *Description) Need(task string) error {
	var why, flags, names []string
	for _, m := range d.Missing(task) {
		if !m.Needed {
			continue
		}
		why = append(why, m.Why)
		names = append(names, m.Field)
		if m.Flags != "" {
			flags = append(flags, m.Flags)
		}
	}
	if len(why) == 0 {
		return nil
	}
	say := ""
	if len(flags) > 0 {
		say = "add " + strings.Join(flags, " and ") + "; or "
	}
	return fmt.Errorf("%s: %w: nothing says %s; %swrite %s to %s.json; or make a file that describes itself with `scripts/export.py`%s",
		d.Path, ErrNoMetadata, strings.Join(why, " and "), say, strings.Join(names, ", "), filepath.Base(d.Path), d.notes())
}

// partOfMetadata reads torchvit.json. Its keys tell what it knows.
func partOfMetadata(text []byte) (*partial, error) {
	meta, err := ParseMetadata(text)
	if err != nil {
		return nil, err
	}
	p := &partial{Metadata: *meta}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &keys); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMetadata, err)
	}
	for _, f := range fields {
		outer, inner, nested := strings.Cut(f.name, ".")
		value, ok := keys[outer]
		if !ok || string(value) == "null" {
			continue
		}
		if nested {
			var within map[string]json.RawMessage
			if err := json.Unmarshal(value, &within); err != nil {
				continue
			}
			if value, ok = within[inner]; !ok || string(value) == "null" {
				continue
			}
		}
		p.know(f.name)
	}
	return p, nil
}

// sizeOf reads a preprocess whose tensors have one size.
func sizeOf(s *transforms.Spec) []int {
	if size, fixed := s.OutputSize(); fixed {
		return []int{size.Height, size.Width}
	}
	return nil
}
