package manual

import (
	"fmt"
	"strings"

	"github.com/callbackd/callbackd/plugins/schema"
)

// The bounds of an example, which nobody reads if it is long.
const (
	maxExampleLines  = 200
	maxExampleBlocks = 3  // of one name
	maxExampleValue  = 60 // characters
)

// Example returns a sink block to paste: what is required is set, what is
// optional is there as a comment with its default. Placeholders are in capital
// letters.
func (m Manual) Example() string {
	e := &example{sinkType: m.Name}
	e.line("", fmt.Sprintf("sink %q \"NAME\" {", m.Name))
	if !empty(m.Schema) {
		e.line("  ", "config {")
		e.body(m.Schema, "    ", "")
		e.line("  ", "}")
	}
	e.line("", "}")
	return e.b.String()
}

type example struct {
	sinkType string
	b        strings.Builder
	lines    int
}

// line writes one that the example is not whole without.
func (e *example) line(indent, text string) {
	e.b.WriteString(indent + text + "\n")
	e.lines++
}

// full tells whether there is room for more.
func (e *example) full() bool { return e.lines >= maxExampleLines }

// gap separates groups.
func (e *example) gap(indent, comment string, wrote bool) {
	if wrote {
		e.b.WriteString(strings.TrimRight(indent+comment, " ") + "\n")
		e.lines++
	}
}

// body writes the content of a block. Within a comment, which comment begins, all
// of it is written alike.
func (e *example) body(s schema.Schema, indent, comment string) {
	var required, optional []*schema.Attribute
	for i := range s.Attributes {
		if a := &s.Attributes[i]; a.Required || comment != "" {
			required = append(required, a)
		} else {
			optional = append(optional, a)
		}
	}
	e.attributes(required, indent+comment)
	wrote := len(required) > 0
	if len(optional) > 0 {
		e.gap(indent, comment, wrote)
		e.attributes(optional, indent+"# ")
		wrote = true
	}
	for i := range s.Blocks {
		block := &s.Blocks[i]
		inner := comment
		if block.MinItems == 0 && comment == "" {
			inner = "# "
		}
		for n := range min(max(block.MinItems, 1), maxExampleBlocks) {
			if e.full() {
				e.line(indent, "# …")
				return
			}
			e.gap(indent, comment, wrote)
			if n == 0 && block.MinItems > maxExampleBlocks {
				e.line(indent, fmt.Sprintf("# at least %d of these", block.MinItems))
			}
			wrote = true
			if empty(block.Schema) {
				e.line(indent+inner, block.Name+" {}")
				continue
			}
			e.line(indent+inner, block.Name+" {")
			if inner == "" {
				e.body(block.Schema, indent+"  ", "")
			} else {
				e.body(block.Schema, indent, inner+"  ")
			}
			e.line(indent+inner, "}")
		}
	}
}

// attributes writes a group, its equals signs below each other.
func (e *example) attributes(list []*schema.Attribute, before string) {
	longest := 0
	for _, a := range list {
		longest = max(longest, len(a.Name))
	}
	for _, a := range list {
		if e.full() {
			e.line(strings.TrimRight(strings.TrimSuffix(before, "# "), "#"), "# …")
			return
		}
		e.line(before, a.Name+strings.Repeat(" ", longest-len(a.Name))+" = "+e.value(a))
	}
}

// value is the default, or a placeholder of the right type.
func (e *example) value(a *schema.Attribute) string {
	if text := defaultText(a); text != "" && len(text) <= maxExampleValue && a.Type.Kind != schema.KindAny {
		return text
	}
	if len(a.OneOf) > 0 {
		return quote(cut(a.OneOf[0], maxValue))
	}
	return e.placeholder(a, a.Type)
}

func (e *example) placeholder(a *schema.Attribute, t schema.Type) string {
	switch t.Kind {
	case schema.KindNumber:
		return "1"
	case schema.KindBool:
		return "true"
	case schema.KindDuration:
		return `"30s"`
	case schema.KindSize:
		return `"10MiB"`
	case schema.KindList:
		return list([]string{e.placeholder(a, *t.Element)})
	case schema.KindMap:
		return object([]string{`"KEY" = ` + e.placeholder(a, *t.Element)})
	}
	name := strings.ToUpper(strings.ReplaceAll(a.Name, "-", "_"))
	switch {
	case a.Sensitive:
		return fmt.Sprintf("env(%q)", strings.ToUpper(strings.ReplaceAll(e.sinkType, "-", "_"))+"_"+name)
	case a.PerEvent:
		return `"${event.type}"`
	}
	return quote(name)
}
