package docs_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema/manual"
)

var update = flag.Bool("update", false, "write what is made of the sinks now into their pages")

// The marks around what is made of a schema.
const (
	settingsBegin = "<!-- settings: make generate writes them, from what the sink declares -->\n"
	settingsEnd   = "<!-- end of settings -->\n"
)

// The settings on the page of each sink are those that it declares.
func TestSettingsOfSinks(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("sinks/*.md")
	if err != nil || len(pages) < 3 {
		t.Fatalf("the pages of the sinks are %v, %v", pages, err)
	}
	dir := t.TempDir()
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		program := filepath.Join(dir, "callbackd-sink-"+name)
		build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../sinks/"+name)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the %s sink: %v\n%s", name, err, out)
		}
		var made string
		err := host.Probe(t.Context(), host.Options{Name: name, Command: []string{program}}, func(_ context.Context, p *host.Probed) error {
			made = "\n" + manual.SettingsMarkdown(p.Schema) + "\n"
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		text := read(t, "docs/"+page)
		before, rest, begins := strings.Cut(text, settingsBegin)
		old, after, ends := strings.Cut(rest, settingsEnd)
		switch {
		case !begins || !ends:
			t.Errorf("docs/%s lacks the lines\n%s%s", page, settingsBegin, settingsEnd)
		case *update:
			if err := os.WriteFile(page, []byte(before+settingsBegin+made+settingsEnd+after), 0o600); err != nil {
				t.Fatal(err)
			}
		case old != made:
			t.Errorf("docs/%s is not up to date: run make generate. It should have\n%s", page, made)
		}
	}
}
