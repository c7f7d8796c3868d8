package jit

import (
	"fmt"
	"os"
	"strings"
)

// Signature gives the types of a method of the module, without libtorch: those of its parameters but self,
// and of its result, as the code in the file writes them, "List[Tensor]". The error wraps [os.ErrNotExist]
// where the module has no such method.
func (a *Archive) Signature(method string) (parameters []string, result string, err error) {
	missing := fmt.Errorf("jit: archive: method %q: %w", clip(method), os.ErrNotExist)
	dot := strings.LastIndexByte(a.root, '.')
	if dot < 0 {
		return nil, "", missing
	}
	record := "code/" + strings.ReplaceAll(a.root[:dot], ".", "/") + ".py"
	if a.records[record] == nil {
		return nil, "", missing
	}
	text, err := a.zip.read(a.records[record], maxSourceSize)
	if err != nil {
		return nil, "", err
	}
	// The strings and comments in it could look like code.
	code, err := checkSourceText(record, string(text))
	if err != nil {
		return nil, "", err
	}
	_, class, found := strings.Cut("\n"+code, "\nclass "+a.root[dot+1:]+"(Module):\n")
	if !found {
		return nil, "", missing
	}
	for line := range strings.SplitSeq(class, "\n") {
		if line != "" && line[0] != ' ' {
			break // of the next class
		}
		if !strings.HasPrefix(line, "  def "+method+"(") {
			continue
		}
		_, text, _ := strings.Cut(class, line)
		text = line + text
		open := strings.IndexByte(text, '(')
		end := matching(text, open)
		if end < 0 {
			break
		}
		for i, p := range splitArguments(text[open+1 : end]) {
			_, typ, typed := strings.Cut(p, ":")
			if i == 0 || !typed { // self, or the star before keywords
				continue
			}
			typ, _, _ = strings.Cut(typ, "=")
			parameters = append(parameters, strings.TrimSpace(typ))
		}
		rest, _, _ := strings.Cut(text[end+1:], "\n")
		result = strings.TrimSuffix(strings.TrimPrefix(rest, " -> "), ":")
		return parameters, result, nil
	}
	return nil, "", missing
}
