package config

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/apparentlymart/go-textseg/v17/textseg"
	"golang.org/x/text/width"
)

const (
	// hiddenText stands for what must not be shown.
	hiddenText = "(sensitive)"
	// maxCells is how much of a line is shown; longer ones are cut around the
	// place.
	maxCells = 120
	// tabText stands for a tab, whose width depends on the terminal.
	tabText = "    "
)

// cells is a range of columns of a terminal, the end not included.
type cells struct{ start, end int }

// WriteText writes d for people: what is wrong, where, the line with the place
// underlined, and what to do.
func (d Diagnostics) WriteText(w io.Writer, color bool) error {
	for i, diag := range d {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, diag.text(color)); err != nil {
			return err
		}
	}
	return nil
}

// WriteJSON writes d as one JSON object with the key "diagnostics", and a line
// break.
func (d Diagnostics) WriteJSON(w io.Writer) error {
	if d == nil {
		d = Diagnostics{}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Diagnostics Diagnostics `json:"diagnostics"`
	}{d})
}

func (d Diagnostic) text(color bool) string {
	paint := func(code, s string) string {
		if !color || s == "" {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	const bold, blue = "1", "1;34"
	tone := "1;31"
	if d.Severity == SeverityWarning {
		tone = "1;33"
	}

	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n", paint(tone, string(d.Severity)+":"), paint(bold, " "+d.Summary))
	gutter := ""
	if d.File != "" {
		place := d.File
		if d.Start.Line > 0 {
			place = fmt.Sprintf("%s:%d:%d", d.File, d.Start.Line, d.Start.Column)
		}
		number := fmt.Sprint(d.Start.Line)
		if d.Start.Line > 0 {
			gutter = strings.Repeat(" ", len(number))
		}
		fmt.Fprintf(&b, "%s%s %s\n", gutter, paint(blue, "-->"), place)
		if d.Source != "" {
			fmt.Fprintf(&b, "%s %s\n", gutter, paint(blue, "|"))
			fmt.Fprintf(&b, "%s %s\n", paint(blue, number+" |"), d.Source)
			fmt.Fprintf(&b, "%s %s %s%s\n", gutter, paint(blue, "|"), strings.Repeat(" ", d.mark.start),
				paint(tone, strings.Repeat("^", max(d.mark.end-d.mark.start, 1))))
		}
	}
	for line := range strings.Lines(d.Detail) {
		fmt.Fprintf(&b, "%s %s\n", gutter, strings.TrimRight(line, "\n"))
	}
	return b.String()
}

// renderLine returns a line of source as it may be shown, with the hidden spans
// masked, and the cells that mark covers. Spans are in bytes of line.
func renderLine(line string, mark span, hidden []span) (string, cells) {
	pieces := linePieces(strings.TrimRight(line, "\r"), hidden)
	total, marked := 0, cells{-1, -1}
	for _, p := range pieces {
		if p.end > mark.start && p.start < max(mark.end, mark.start+1) {
			if marked.start < 0 {
				marked.start = total
			}
			marked.end = total + p.width
		}
		total += p.width
	}
	if marked.start < 0 { // behind the last character
		marked = cells{total, total + 1}
	}
	return cutLine(pieces, total, marked)
}

// piece is a part of a line that is shown or left out as a whole.
type piece struct {
	text       string
	start, end int // bytes of the line
	width      int // cells
}

func linePieces(line string, hidden []span) []piece {
	var out []piece
	for at := 0; at < len(line); {
		for len(hidden) > 0 && hidden[0].end <= at {
			hidden = hidden[1:]
		}
		if len(hidden) > 0 && hidden[0].start <= at {
			end := min(hidden[0].end, len(line))
			out = append(out, piece{hiddenText, at, end, len(hiddenText)})
			at = end
			continue
		}
		n, _, err := textseg.ScanGraphemeClusters([]byte(line[at:min(len(line), at+256)]), true)
		if err != nil || n == 0 {
			n = 1
		}
		if len(hidden) > 0 && at+n > hidden[0].start {
			n = hidden[0].start - at
		}
		text := harmless(strings.ReplaceAll(line[at:at+n], "\t", tabText))
		out = append(out, piece{text, at, at + n, textWidth(text)})
		at += n
	}
	return out
}

// cutLine joins pieces, and where they are too wide only those around mark.
func cutLine(pieces []piece, total int, mark cells) (string, cells) {
	from, to := 0, total
	if total > maxCells {
		from = max(0, min(mark.start-maxCells/3, total-maxCells))
		to = from + maxCells
	}
	const cut = "…"
	var b strings.Builder
	at, shift := 0, 0
	if from > 0 {
		b.WriteString(cut)
		shift = 1
	}
	first := -1
	for _, p := range pieces {
		if at >= from && at+p.width <= to {
			if first < 0 {
				first = at
			}
			b.WriteString(p.text)
		}
		at += p.width
	}
	if to < total {
		b.WriteString(cut)
	}
	if first < 0 {
		first = from
	}
	mark.start = max(mark.start, first)
	mark.end = max(min(mark.end, to), mark.start+1)
	return b.String(), cells{mark.start - first + shift, mark.end - first + shift}
}

// textWidth is how many cells one character takes.
func textWidth(s string) int {
	if s == tabText {
		return len(tabText)
	}
	wide := 0
	for _, r := range s {
		n := 1
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
			n = 0
		default:
			if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
				n = 2
			}
		}
		wide = max(wide, n)
	}
	return wide
}

// harmless replaces what a terminal would act on: control characters other than
// the line break, marks that turn the direction of writing, and bytes that are
// not UTF-8.
func harmless(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || unsafeRune(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unsafeRune(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

func unsafeRune(r rune) bool {
	switch {
	case r == '\n':
		return false
	case unicode.IsControl(r), r == '\u2028', r == '\u2029', r == '\u061c', r == '\u200e', r == '\u200f', r == '\ufeff':
		return true
	case r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069':
		return true
	}
	return false
}
