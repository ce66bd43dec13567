package plan

// Texts returns the sections as they stand in the text, in order.
func (m *Model) Texts() []string {
	texts := make([]string, len(m.sections))
	for i, s := range m.sections {
		texts[i] = s.text
	}
	return texts
}
