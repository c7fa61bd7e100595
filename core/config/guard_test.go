package config

import (
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Pieces of syntax that make the parser, or a walk over its tree, go deeper or
// take longer. TestGuard repeats them and their pairs.
var deepPieces = []string{
	"(", "[", "{", "${", "%{if a}", "\"", "!", "-", "a ", "a?", "a:", "=", "\n", "}", "]", ")",
	"b{", "<<E\n", "+", "*", ".", "f(", ",", "a=", "[*]", ".*", "for a in ",
}

// Whatever the guard lets through, hclsyntax parses and walks within a small
// part of the stack that a goroutine may have, and soon. An overflow would end
// this process.
func TestGuard(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(16 << 20))
	patterns := append([]string(nil), deepPieces...)
	for i, a := range deepPieces {
		for j, b := range deepPieces {
			if (i+2*j)%5 != 0 { // all of them take a minute under the race detector
				continue
			}
			patterns = append(patterns, a+b)
		}
	}
	refused, parsed := 0, 0
	for _, prefix := range []string{"a = ", "a=\""} {
		for _, pattern := range patterns {
			src := []byte(prefix + strings.Repeat(pattern, (4<<10)/len(pattern)))
			begin := time.Now()
			if guard(src, "x").HasErrors() {
				refused++
			} else {
				parsed++
				file, _ := hclsyntax.ParseConfig(src, "x", hcl.InitialPos)
				if body, ok := file.Body.(*hclsyntax.Body); ok {
					_ = hclsyntax.VisitAll(body, func(hclsyntax.Node) hcl.Diagnostics { return nil })
				}
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("%q after %q took %v", pattern, prefix, took)
			}
		}
	}
	if refused == 0 || parsed == 0 {
		t.Errorf("refused %d, parsed %d", refused, parsed)
	}
}

// What people write is let through.
func TestGuardLetsThrough(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]string{
		"alternatives": "a = " + strings.TrimSuffix(strings.Repeat("event.type == \"x\" ||\n event.b == 1 || ", 200), "|| ") + "\n",
		"list":         "a = [\n" + strings.Repeat("  -1, !true, (1 + 2),\n", 5000) + "]\n",
		"objects":      "a = {\n" + strings.Repeat("  x = [1 + 1]\n", 5000) + "}\n",
		"blocks":       strings.Repeat("a \"b\" {\n  x = 1 + 1\n}\n", 5000),
		"heredoc":      "a = <<EOT\n" + strings.Repeat("text ${a} %{ if b }x%{ endif }\n", 150) + "EOT\n",
		"nested":       strings.Repeat("a {\n", 20) + strings.Repeat("}\n", 20),
		"unclosed":     "a {\n  b = (1 + 1\n}\n" + strings.Repeat("a {\n  b = 1 + 1\n}\n", 1000),
	} {
		if name == "alternatives" {
			src = strings.ReplaceAll(src, "= event", "= (event")
			src = strings.TrimSuffix(src, "\n") + ")\n"
		}
		if diags := guard([]byte(src), name); diags.HasErrors() {
			t.Errorf("%s: %v", name, diags)
		}
	}
}
