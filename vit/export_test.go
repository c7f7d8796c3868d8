package vit

// DescriptionOf is what Describe makes of one text in place of every file that other programs write.
func DescriptionOf(text string) *Description {
	d := &Description{Path: "model.pt", from: map[string]string{}}
	for _, s := range []struct {
		name  string
		parse func(text []byte) (*partial, error)
	}{
		{ultralyticsFile, partOfUltralytics},
		{preprocessorFile, partOfPreprocessor},
		{processorFile, partOfProcessor},
		{configFile, partOfConfig},
	} {
		p, err := s.parse([]byte(text))
		if err != nil {
			d.note(s.name, "%v", err)
			continue
		}
		d.merge(s.name, p)
	}
	return d
}
