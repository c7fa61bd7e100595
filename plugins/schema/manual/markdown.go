package manual

import (
	"regexp"
	"strings"

	"github.com/callbackd/callbackd/plugins/schema"
)

// Markdown returns the manual as a page.
func (m Manual) Markdown() string {
	var b strings.Builder
	b.WriteString("# The " + plain(m.Name) + " sink\n")
	if m.Version != "" {
		b.WriteString("\nVersion " + plain(m.Version) + ".\n")
	}
	if doc := sentence(m.Doc); doc != "" {
		b.WriteString("\n" + prose(doc) + "\n")
	}
	if limits := m.Limits.sentence(); limits != "" {
		b.WriteString("\n" + limits + "\n")
	}
	b.WriteString("\n```hcl\n" + m.Example() + "```\n\n## Settings\n\n" + SettingsMarkdown(m.Schema))
	return b.String()
}

// SettingsMarkdown returns the settings as a table. A setting in a block is
// written as "block { setting }".
func SettingsMarkdown(s schema.Schema) string {
	if empty(s) {
		return "It has no settings.\n"
	}
	var b strings.Builder
	b.WriteString("| setting | type | default | meaning |\n| --- | --- | --- | --- |\n")
	markdownRows(&b, s, "", "")
	return b.String()
}

func markdownRows(b *strings.Builder, s schema.Schema, before, behind string) {
	row := func(name string, cells ...string) {
		b.WriteString("| `" + before + name + behind + "` | " + strings.Join(cells, " | ") + " |\n")
	}
	for i := range s.Attributes {
		a := &s.Attributes[i]
		row(a.Name, markdownType(a), markdownDefault(a), strings.Join(markdownMeaning(a), " "))
	}
	for i := range s.Blocks {
		block := &s.Blocks[i]
		words, required := strings.CutSuffix(blockWords(block), ", required")
		byDefault := "none"
		if required {
			byDefault = "required"
		}
		row(block.Name+" { }", words, byDefault, prose(sentence(block.Doc)))
		markdownRows(b, block.Schema, before+block.Name+" { ", " }"+behind)
	}
}

func markdownType(a *schema.Attribute) string {
	words := typeWords(a.Type)
	if a.PerEvent {
		words += ", per event"
	}
	if a.Sensitive {
		words += ", sensitive"
	}
	return words
}

func markdownDefault(a *schema.Attribute) string {
	if a.Required {
		return "required"
	}
	if text := defaultText(a); text != "" {
		return code(text)
	}
	return "none"
}

func markdownMeaning(a *schema.Attribute) []string {
	var out []string
	if doc := sentence(a.Doc); doc != "" {
		out = append(out, prose(doc))
	}
	if !explained(a) {
		out = append(out, "One of "+choice(listed(a.OneOf, func(s string) string { return code(quote(cut(s, maxValue))) }))+".")
	}
	if len(a.Escape) > 0 {
		out = append(out, "In text that comes from an event, "+strings.Join(listed(a.Escape, func(r schema.Replacement) string {
			from, to := code(cut(r.From, maxValue)), code(cut(r.To, maxValue))
			if r.To == "" {
				return from + " is left out"
			}
			return from + " becomes " + to
		}), ", ")+".")
	}
	return out
}

// codeSpan finds in an author's words what reads better as code: text in quotes,
// and names with an underscore or an equals sign.
var codeSpan = regexp.MustCompile(`"[^"\s][^"]*"|\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b`)

// prose is an author's text in a table or a paragraph: none of it is markup.
func prose(text string) string {
	var b strings.Builder
	last := 0
	for _, at := range codeSpan.FindAllStringIndex(text, -1) {
		b.WriteString(plain(text[last:at[0]]) + code(text[at[0]:at[1]]))
		last = at[1]
	}
	b.WriteString(plain(text[last:]))
	return b.String()
}

// plain escapes what Markdown or HTML would take for markup.
func plain(text string) string {
	var b strings.Builder
	for _, r := range visible(text) {
		switch r {
		case '&':
			b.WriteString("&amp;")
		case '<':
			b.WriteString("&lt;")
		case '>':
			b.WriteString("&gt;")
		case '\\', '`', '*', '_', '[', ']', '|', '~', '#', '!':
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// code is text as a code span within a table. In one, only a bar can be escaped.
func code(text string) string {
	text = strings.ReplaceAll(visible(text), "|", `\|`)
	fence := "`"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	if fence == "`" && strings.TrimSpace(text) != "" && !strings.HasPrefix(text, " ") {
		return fence + text + fence
	}
	return fence + " " + text + " " + fence
}
