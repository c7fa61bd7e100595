package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Severity says how bad a Diagnostic is.
type Severity string

// The severities.
const (
	// SeverityError: the configuration cannot be used.
	SeverityError Severity = "error"
	// SeverityWarning: it can be used, but is probably not what is meant.
	SeverityWarning Severity = "warning"
)

// Position is a place in a file. The zero value is none.
type Position struct {
	// Line counts from 1.
	Line int `json:"line"`
	// Column counts characters as people see them, from 1.
	Column int `json:"column"`
}

// Diagnostic says what is wrong with a configuration, where, and what to do. It
// holds no secrets and no control characters: it is made for being shown.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Summary says what is wrong, in one line.
	Summary string `json:"summary"`
	// Detail says what to do about it. It may have several lines, or be empty.
	Detail string `json:"detail,omitempty"`
	// File is the file as the user named it. Empty where there is no file, as
	// when the configuration's folder is empty.
	File string `json:"file,omitempty"`
	// Start and End bound the place; End is behind the last character.
	Start Position `json:"start,omitzero"`
	End   Position `json:"end,omitzero"`
	// Source is the line of Start, with secrets masked. See WriteText for how it
	// is underlined.
	Source string `json:"source,omitempty"`

	// mark is the underlined part of Source, in cells.
	mark cells
}

// String returns d in one line, without the source: "file:3:7: Summary: detail".
func (d Diagnostic) String() string {
	text := d.Summary
	if d.Detail != "" {
		text += ": " + oneLine(d.Detail)
	}
	if d.File == "" {
		return text
	}
	if d.Start.Line == 0 {
		return d.File + ": " + text
	}
	return fmt.Sprintf("%s:%d:%d: %s", d.File, d.Start.Line, d.Start.Column, text)
}

// Diagnostics are what is wrong with a configuration, in the order of files and
// lines.
type Diagnostics []Diagnostic //nolint:errname // an error only where it has errors, see Err

// HasErrors tells whether any of them is an error.
func (d Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(d, func(x Diagnostic) bool { return x.Severity == SeverityError })
}

// Errors returns those that are errors.
func (d Diagnostics) Errors() Diagnostics {
	return slices.DeleteFunc(slices.Clone(d), func(x Diagnostic) bool { return x.Severity != SeverityError })
}

// Error makes Diagnostics usable as an error: the text of WriteText, without
// color.
func (d Diagnostics) Error() string {
	var b strings.Builder
	_ = d.WriteText(&b, false) // a strings.Builder takes everything
	return strings.TrimSuffix(b.String(), "\n")
}

// Err returns d as an error where it has errors, else nil.
func (d Diagnostics) Err() error {
	if d.HasErrors() {
		return d
	}
	return nil
}

// problems collects what is wrong while positions are still those of HCL.
type problems struct {
	list hcl.Diagnostics
	// dropped counts those beyond maxProblems.
	dropped int
}

// maxProblems bounds how many diagnostics one call answers with.
const maxProblems = 500

func (p *problems) add(diags ...*hcl.Diagnostic) {
	for _, diag := range diags {
		if len(p.list) >= maxProblems {
			p.dropped++
			continue
		}
		p.list = append(p.list, diag)
	}
}

func (p *problems) errorAt(rng hcl.Range, summary, detail string) {
	p.add(&hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &rng})
}

func (p *problems) warnAt(rng hcl.Range, summary, detail string) {
	p.add(&hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary, Detail: detail, Subject: &rng})
}
