package catalog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema/manual"
)

// configs are tried with every schema that is accepted.
func configs() []string {
	return []string{
		"sink \"x\" \"y\" {\n}\n",
		"sink \"x\" \"y\" {\n  config {\n    a = 1\n    t = event.type\n    w = \"30s\"\n    j = [event.data, { k = null }]\n    b {\n      s = \"1B\"\n    }\n    b {\n      b {}\n    }\n  }\n}\n",
		"sink \"x\" \"y\" {\n  config {\n    a = { k = \"v\" }\n    t = \"x${event.data.a}\"\n    w = null\n    j = event.data\n    b {\n      a = [[]]\n      t = {}\n      s = -1\n    }\n  }\n}\n",
	}
}

// FuzzDescription: whatever a plugin says about itself, or somebody put into the
// catalog, is refused with a message, or is shown and decodes configurations
// without a panic and in a bounded size.
func FuzzDescription(f *testing.F) {
	content, err := encode(description())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content[headerLen:])
	seed := func(s *sinkpb.Schema) {
		body, err := proto.Marshal(&sinkpb.DescribeResponse{Name: "x", Schema: s})
		if err != nil {
			f.Fatal(err)
		}
		if len(body) <= 32<<10 { // of larger ones the fuzzer makes nothing
			f.Add(body)
		}
	}
	for _, s := range hostile() {
		seed(s)
	}
	path := filepath.Join(f.TempDir(), "config.hcl")
	ev := &event.Event{Type: "t", Body: []byte(`{"a":[1,{"b":"<&"}]}`)}
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := decodeBody(body)
		if err != nil {
			if text := err.Error(); text == "" || len(text) > 64<<10 {
				t.Fatalf("the message has %d bytes", len(text))
			}
			return
		}
		if again, err := encode(d); err != nil {
			t.Fatalf("%+v cannot be written: %v", d, err)
		} else if _, err := decode(again); err != nil {
			t.Fatalf("%+v cannot be read again: %v", d, err)
		}
		m := manual.Manual{Name: d.Name, Version: d.Version, Doc: d.Doc, Schema: d.Schema, Limits: manual.Limits(d.Capabilities)}
		for _, text := range []string{m.Text(), m.Markdown()} {
			// All there can be: the text itself, escaped, and a frame around each
			// setting.
			if len(text) > 16<<20 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == '\u202e' }) {
				t.Fatalf("%d bytes: %.1000q", len(text), text)
			}
		}
		if _, err := json.Marshal(m.Document()); err != nil {
			t.Fatal(err)
		}
		example := m.Example()
		if n := strings.Count(example, "\n"); n > 400 {
			t.Fatalf("the example has %d lines", n)
		}
		for _, text := range append(configs(), example) {
			decodeWith(t, path, text, d, ev)
		}
	})
}

func decodeWith(t *testing.T, path, text string, d *hostDescription, ev *event.Event) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, diags := config.Load(path, config.Options{
		LookupEnv: func(string) (string, bool) { return "value", true }, PluginDir: "/nowhere", SkipFileChecks: true,
	})
	if cfg == nil {
		if !diags.HasErrors() {
			t.Fatal("no configuration, and no reason")
		}
		return
	}
	start := time.Now()
	for i := range cfg.Sinks {
		settings, diags := cfg.DecodeSink(&cfg.Sinks[i], d.Schema)
		if (settings == nil) != diags.HasErrors() {
			t.Fatalf("settings %v with %v", settings, diags)
		}
		if text := diags.Error(); len(text) > 4<<20 {
			t.Fatalf("diagnostics of %d bytes", len(text))
		}
		if settings == nil {
			continue
		}
		for _, value := range settings.PerEvent {
			_, _ = value(event.NewView(ev)) // an error is an answer
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Fatalf("it took %s", took)
	}
}
