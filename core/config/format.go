package config

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/callbackd/callbackd/plugins/schema"
)

// Format returns src in the canonical layout. Only white space between tokens
// changes; where the result would mean something else, or is not stable, that is
// an error and nothing is returned. filename is for the diagnostics.
func Format(filename string, src []byte) ([]byte, Diagnostics) {
	var p problems
	f := &sourceFile{name: filename, src: src}
	files := &sources{files: []*sourceFile{f}}
	fail := func(diags ...*hcl.Diagnostic) ([]byte, Diagnostics) {
		p.add(diags...)
		files.hideUnparsed(f)
		return nil, files.diagnostics(&p)
	}
	if len(src) > maxFileBytes {
		return fail(&hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "The file is too large",
			Detail:  "A file of the configuration has at most " + schema.FormatSize(maxFileBytes) + ".",
			Subject: &hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos},
		})
	}
	if _, diags := parse(f); diags.HasErrors() {
		return fail(diags...)
	}
	out := src
	// The layout of one pass may let the next one align more. It settles soon.
	for range 4 {
		next := hclwrite.Format(out)
		if !sameTokens(out, next) {
			break
		}
		if bytes.Equal(out, next) {
			return ensureNewline(out), nil
		}
		out = next
	}
	return fail(&hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "The file cannot be formatted",
		Detail:  "Its layout cannot be changed without a change of its meaning. It is left as it is.",
		Subject: &hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos},
	})
}

// sameTokens tells whether two texts have the same tokens, so that they differ
// in the white space between them only.
func sameTokens(a, b []byte) bool {
	x, _ := hclsyntax.LexConfig(a, "", hcl.InitialPos)
	y, diags := hclsyntax.LexConfig(b, "", hcl.InitialPos)
	if diags.HasErrors() || len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i].Type != y[i].Type || !bytes.Equal(x[i].Bytes, y[i].Bytes) {
			return false
		}
	}
	return true
}

func ensureNewline(src []byte) []byte {
	if len(src) == 0 || src[len(src)-1] == '\n' {
		return src
	}
	return append(bytes.Clone(src), '\n')
}
