package manual

import (
	"strings"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/schema"
)

// width is how many characters a line of text has at most, unless a word is
// longer.
const width = 96

// Text returns the manual for a terminal.
func (m Manual) Text() string {
	var b strings.Builder
	b.WriteString(m.title() + "\n")
	for _, paragraph := range []string{sentence(m.Doc), m.Limits.sentence()} {
		if paragraph != "" {
			b.WriteByte('\n')
			wrap(&b, paragraph, "")
		}
	}
	b.WriteByte('\n')
	b.WriteString(SettingsText(m.Schema))
	b.WriteString("\nExample:\n\n")
	for line := range strings.Lines(m.Example()) {
		if line != "\n" {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	return b.String()
}

// SettingsText returns the settings for a terminal.
func SettingsText(s schema.Schema) string {
	if empty(s) {
		return "It has no settings.\n"
	}
	var b strings.Builder
	b.WriteString("Settings, in config { … }:\n\n")
	textBody(&b, s, "  ")
	return b.String()
}

func textBody(b *strings.Builder, s schema.Schema, indent string) {
	nameWidth := 0
	for i := range s.Attributes {
		nameWidth = max(nameWidth, len(s.Attributes[i].Name))
	}
	nameWidth = min(nameWidth, 24)
	for i := range s.Attributes {
		a := &s.Attributes[i]
		pad := strings.Repeat(" ", max(0, nameWidth-len(a.Name)))
		b.WriteString(indent + a.Name + pad + "  " + strings.Join(attributeWords(a), ", ") + "\n")
		for _, doc := range []string{sentence(a.Doc), oneOfText(a), escapeText(a)} {
			wrap(b, doc, indent+"    ")
		}
	}
	for i := range s.Blocks {
		block := &s.Blocks[i]
		b.WriteString(indent + block.Name + " { … }  " + blockWords(block) + "\n")
		wrap(b, sentence(block.Doc), indent+"    ")
		textBody(b, block.Schema, indent+"  ")
	}
}

func attributeWords(a *schema.Attribute) []string {
	words := []string{typeWords(a.Type)}
	if a.PerEvent {
		words = append(words, "per event")
	}
	if a.Sensitive {
		words = append(words, "sensitive")
	}
	if a.Required {
		words = append(words, "required")
	} else if text := defaultText(a); text != "" {
		words = append(words, "default "+text)
	}
	return words
}

func oneOfText(a *schema.Attribute) string {
	if explained(a) {
		return ""
	}
	return "One of: " + strings.Join(listed(a.OneOf, func(s string) string { return quote(cut(s, maxValue)) }), ", ") + "."
}

func escapeText(a *schema.Attribute) string {
	if len(a.Escape) == 0 {
		return ""
	}
	return "In text that comes from an event, " + strings.Join(listed(a.Escape, func(r schema.Replacement) string {
		from, to := visible(cut(r.From, maxValue)), visible(cut(r.To, maxValue))
		if to == "" {
			return from + " is left out"
		}
		return from + " becomes " + to
	}), ", ") + "."
}

// wrap writes a paragraph, broken between words.
func wrap(b *strings.Builder, text, indent string) {
	column := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
			b.WriteString(indent)
			column = utf8.RuneCountInString(indent)
		case column+1+n > width:
			b.WriteString("\n" + indent)
			column = utf8.RuneCountInString(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	if column > 0 {
		b.WriteByte('\n')
	}
}
