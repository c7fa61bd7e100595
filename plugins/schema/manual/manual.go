// Package manual writes what a sink type's settings are, for people: of the
// schema that its plugin declares, as text, as Markdown, as a JSON document, and
// as an example to paste.
//
// It promises that a schema which schema.Check accepts, whoever declared it, gives
// text without control characters, of a bounded length, in which nothing the
// plugin says is taken for markup. It knows neither HCL's parser nor how plugins
// are run.
package manual

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/callbackd/callbackd/plugins/schema"
)

// Manual is what a plugin says about its sink type.
type Manual struct {
	// Name is the sink type.
	Name string
	// Version is the plugin's own version. May be empty.
	Version string
	// Doc says what the sink does, in a few sentences. May be empty.
	Doc string
	// Schema has passed schema.Check.
	Schema schema.Schema
	Limits Limits
}

// Limits are what the plugin asks of the daemon; 0 leaves it to the daemon.
type Limits struct {
	// MaxInFlight is how many deliveries it works on at the same time.
	MaxInFlight int
	// MaxBatchEvents is how many deliveries it takes at once, as a batch.
	MaxBatchEvents int
	// MaxCalls is how many batches it works on at the same time.
	MaxCalls int
	// Linger is how long a batch waits for more.
	Linger time.Duration
}

// sentence tells the limits; empty where there are none.
func (l Limits) sentence() string {
	var parts []string
	if l.MaxInFlight > 0 {
		parts = append(parts, fmt.Sprintf("at most %d at the same time", l.MaxInFlight))
	}
	if l.MaxBatchEvents > 0 {
		parts = append(parts, fmt.Sprintf("at most %d in a batch", l.MaxBatchEvents))
	}
	if l.MaxCalls > 0 {
		parts = append(parts, fmt.Sprintf("at most %s at the same time", number(l.MaxCalls, "batch", "batches")))
	}
	if l.Linger > 0 {
		parts = append(parts, fmt.Sprintf("a batch that is not full waits %s for more", schema.FormatDuration(l.Linger)))
	}
	if len(parts) == 0 {
		return ""
	}
	return "Deliveries: " + strings.Join(parts, ", ") + "."
}

func number(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// title is the first line: the sink type and its version.
func (m Manual) title() string {
	if version := oneLine(m.Version); version != "" {
		return oneLine(m.Name) + " " + version
	}
	return oneLine(m.Name)
}

func empty(s schema.Schema) bool { return len(s.Attributes)+len(s.Blocks) == 0 }

// typeWords names a type: "duration", "list of texts".
func typeWords(t schema.Type) string {
	switch t.Kind {
	case schema.KindList:
		return "list of " + plural(*t.Element)
	case schema.KindMap:
		return "map of " + plural(*t.Element)
	}
	return kindWord(t.Kind)
}

func plural(t schema.Type) string {
	switch t.Kind {
	case schema.KindList:
		return "lists of " + plural(*t.Element)
	case schema.KindMap:
		return "maps of " + plural(*t.Element)
	case schema.KindBool:
		return kindWord(t.Kind)
	}
	return kindWord(t.Kind) + "s"
}

func kindWord(kind schema.Kind) string {
	switch kind {
	case schema.KindString:
		return "text"
	case schema.KindNumber:
		return "number"
	case schema.KindBool:
		return "true or false"
	case schema.KindDuration:
		return "duration"
	case schema.KindSize:
		return "size"
	case schema.KindPath:
		return "path"
	}
	return "any value"
}

// blockWords says how often a block may be there.
func blockWords(b *schema.Block) string {
	switch {
	case !b.Repeated && b.MinItems > 0:
		return "block, required"
	case !b.Repeated:
		return "block"
	case b.MinItems > 0 && b.MaxItems > 0 && b.MinItems == b.MaxItems:
		return number(b.MinItems, "block", "blocks") + ", required"
	case b.MinItems > 0 && b.MaxItems > 0:
		return fmt.Sprintf("%d to %d blocks, required", b.MinItems, b.MaxItems)
	case b.MinItems > 0:
		return fmt.Sprintf("at least %s, required", number(b.MinItems, "block", "blocks"))
	case b.MaxItems > 0:
		return fmt.Sprintf("at most %s", number(b.MaxItems, "block", "blocks"))
	}
	return "any number of blocks"
}

// How much of a schema is written out. A list names so many entries, a value so
// many characters of itself.
const (
	maxListed = 24
	maxValue  = 200
)

// defaultText is the default as it is written in a configuration; empty where
// there is none to show.
func defaultText(a *schema.Attribute) string {
	if a.Default == nil || a.Sensitive {
		return ""
	}
	return cut(literal(a.Default, a.Type), maxValue)
}

// listed writes some of the values.
func listed[T any](values []T, text func(T) string) []string {
	out := make([]string, 0, min(len(values), maxListed)+1)
	for i, v := range values {
		if i == maxListed {
			return append(out, fmt.Sprintf("%d more", len(values)-i))
		}
		out = append(out, text(v))
	}
	return out
}

// explained tells whether the doc has every value that is allowed already.
func explained(a *schema.Attribute) bool {
	for _, value := range a.OneOf {
		if !strings.Contains(a.Doc, quote(value)) {
			return false
		}
	}
	return true
}

// choice joins what can be chosen from: "a, b or c".
func choice(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
	return strings.Join(words, "")
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}

// sentence makes a sentence of an author's words, which are often less: the
// first letter large, unless it begins a name, and a point at the end.
func sentence(doc string) string {
	doc = oneLine(doc)
	if doc == "" {
		return ""
	}
	first, _, _ := strings.Cut(doc, " ")
	word := strings.TrimRight(first, ",;")
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyz-'’") == "" {
		doc = strings.ToUpper(doc[:1]) + doc[1:]
	}
	if !strings.ContainsAny(doc[len(doc)-1:], ".!?:") && !strings.HasSuffix(doc, "…") {
		doc += "."
	}
	return doc
}

// oneLine is text of a plugin on one line, its control characters visible: it
// must not steer a terminal.
func oneLine(s string) string { return visible(strings.Join(strings.Fields(s), " ")) }

func visible(s string) string {
	if !strings.ContainsFunc(s, steers) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if steers(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// steers tells of characters that are not seen but change what is: controls,
// separators of lines, those that turn the direction of what follows.
func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar
}
