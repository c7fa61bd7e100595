package config

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"

	"github.com/callbackd/callbackd/core/redact"
)

// sourceFile is one file of the configuration.
type sourceFile struct {
	name string
	src  []byte
	// hidden are the parts that must not be quoted.
	hidden []span
}

// span is a range of bytes, the end not included.
type span struct{ start, end int }

// sources are the files of a configuration and what must not be shown of them.
// Sinks are decoded at the same time, so the methods may be called from any
// goroutine.
type sources struct {
	files []*sourceFile // not changed after Load has read them

	mu sync.Mutex
	// secrets are the values that must not be shown anywhere.
	secrets []string
}

func (s *sources) allSecrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.secrets)
}

func (s *sources) file(name string) *sourceFile {
	for _, f := range s.files {
		if f.name == name {
			return f
		}
	}
	return nil
}

// hide keeps the bytes of rng from being quoted.
func (s *sources) hide(rng hcl.Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.file(rng.Filename); f != nil && rng.End.Byte > rng.Start.Byte {
		f.hidden = append(f.hidden, span{rng.Start.Byte, rng.End.Byte})
	}
}

// veil returns a function that takes back what was hidden since.
func (s *sources) veil() (show func()) {
	before := make([]int, len(s.files))
	for i, f := range s.files {
		before[i] = len(f.hidden)
	}
	return func() {
		for i, f := range s.files {
			f.hidden = f.hidden[:before[i]]
		}
	}
}

// addSecret remembers a value that must not be shown.
func (s *sources) addSecret(v string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v != "" && !slices.Contains(s.secrets, v) {
		s.secrets = append(s.secrets, v)
	}
}

// diagnostics makes problems fit to be shown: sorted, with their line of source,
// without secrets and control characters.
func (s *sources) diagnostics(p *problems) Diagnostics {
	if len(p.list) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mask := redact.New(s.secrets)
	order := func(d *hcl.Diagnostic) (file, line, column int) {
		if d.Subject == nil {
			return -1, 0, 0
		}
		file = slices.IndexFunc(s.files, func(f *sourceFile) bool { return f.name == d.Subject.Filename })
		return file, d.Subject.Start.Line, d.Subject.Start.Column
	}
	slices.SortStableFunc(p.list, func(a, b *hcl.Diagnostic) int {
		fa, la, ca := order(a)
		fb, lb, cb := order(b)
		return cmp.Or(cmp.Compare(fa, fb), cmp.Compare(la, lb), cmp.Compare(ca, cb))
	})
	out := make(Diagnostics, 0, len(p.list))
	for _, h := range p.list {
		d := Diagnostic{
			Severity: SeverityError,
			Summary:  harmless(oneLine(mask.Mask(h.Summary))),
			Detail:   harmless(mask.Mask(h.Detail)),
		}
		if h.Severity == hcl.DiagWarning {
			d.Severity = SeverityWarning
		}
		if h.Subject != nil {
			d.File = harmless(h.Subject.Filename)
			d.Start = Position{h.Subject.Start.Line, h.Subject.Start.Column}
			d.End = Position{h.Subject.End.Line, h.Subject.End.Column}
			if f := s.file(h.Subject.Filename); f != nil {
				d.Source, d.mark = f.quote(*h.Subject, s.secrets)
			}
		}
		out = append(out, d)
	}
	if p.dropped > 0 {
		out = append(out, Diagnostic{
			Severity: SeverityError,
			Summary:  fmt.Sprintf("%d more problems are not shown", p.dropped),
		})
	}
	return slices.CompactFunc(out, func(a, b Diagnostic) bool {
		return a.Summary == b.Summary && a.Detail == b.Detail && a.File == b.File && a.Start == b.Start
	})
}

// quote returns the line where rng starts, as it may be shown, and which of its
// cells rng covers.
func (f *sourceFile) quote(rng hcl.Range, secrets []string) (string, cells) {
	at := min(rng.Start.Byte, len(f.src))
	start := bytes.LastIndexByte(f.src[:at], '\n') + 1
	end := len(f.src)
	if i := bytes.IndexByte(f.src[at:], '\n'); i >= 0 {
		end = at + i
	}
	line := f.src[start:end]

	var hidden []span
	for _, h := range f.hidden {
		if h.start < end && h.end > start {
			hidden = append(hidden, span{max(h.start-start, 0), min(h.end, end) - start})
		}
	}
	hidden = append(hidden, occurrences(string(line), secrets)...)
	return renderLine(string(line), span{at - start, max(rng.End.Byte, at) - start}, mergeSpans(hidden))
}

// occurrences finds secrets in a line. Short ones are found too: a line of the
// user's own file is short, and hiding too much of it does no harm.
func occurrences(line string, secrets []string) []span {
	var out []span
	for _, secret := range secrets {
		// A text of several lines shows in each of its lines.
		for part := range strings.SplitSeq(secret, "\n") {
			if len(part) < redact.MinLen {
				continue
			}
			for from := 0; ; {
				i := strings.Index(line[from:], part)
				if i < 0 {
					break
				}
				out = append(out, span{from + i, from + i + len(part)})
				from += i + len(part)
			}
		}
	}
	return out
}

func mergeSpans(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && s.start <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, s.end)
			continue
		}
		out = append(out, s)
	}
	return out
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(s), " ")
}
