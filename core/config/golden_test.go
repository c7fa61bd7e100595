package config_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/plugins/schema"
)

var update = flag.Bool("update", false, "write what is said now into the golden files")

// testSchemas are what the plugins of the golden tests declare, by sink type.
func testSchemas() map[string]schema.Schema {
	text := schema.Type{Kind: schema.KindString}
	number := schema.Type{Kind: schema.KindNumber}
	escape := []schema.Replacement{{From: "&", To: "&amp;"}, {From: "<", To: "&lt;"}, {From: ">", To: "&gt;"}}
	return map[string]schema.Schema{
		"file": {
			Attributes: []schema.Attribute{
				{Name: "path", Type: schema.Type{Kind: schema.KindPath}, Required: true, Doc: "the file to append to"},
				{Name: "format", Type: text, Default: "event", OneOf: []string{"event", "body"}},
				{Name: "sync", Type: text, Default: "batch", OneOf: []string{"batch", "none"}},
				{Name: "mode", Type: text, Default: "0640"},
			},
			Blocks: []schema.Block{{Name: "rotate", Schema: schema.Schema{Attributes: []schema.Attribute{
				{Name: "max_size", Type: schema.Type{Kind: schema.KindSize}},
				{Name: "max_age", Type: schema.Type{Kind: schema.KindDuration}},
				{Name: "keep", Type: number, Default: int64(7)},
				{Name: "compress", Type: schema.Type{Kind: schema.KindBool}, Default: false},
			}}}},
		},
		"slack": {Attributes: []schema.Attribute{
			{Name: "webhook_url", Type: text, Sensitive: true},
			{Name: "token", Type: text, Sensitive: true},
			{Name: "channel", Type: text},
			{Name: "text", Type: text, PerEvent: true, Escape: escape},
			{Name: "blocks", Type: schema.Type{Kind: schema.KindAny}, PerEvent: true, Escape: escape},
		}},
		"webhook": {
			Attributes: []schema.Attribute{
				{Name: "url", Type: text, Required: true, Doc: "where requests go"},
				{Name: "headers", Type: schema.Type{Kind: schema.KindMap, Element: &text}, PerEvent: true},
				{Name: "signing_secrets", Type: schema.Type{Kind: schema.KindList, Element: &text}, Sensitive: true},
				{Name: "final_status", Type: schema.Type{Kind: schema.KindList, Element: &number}},
				{Name: "allow_link_local", Type: schema.Type{Kind: schema.KindBool}, Default: false},
			},
			Blocks: []schema.Block{{Name: "tls", Schema: schema.Schema{Attributes: []schema.Attribute{
				{Name: "ca_file", Type: schema.Type{Kind: schema.KindPath}},
			}}}},
		},
		"routes": {Blocks: []schema.Block{{
			Name: "route", Doc: "one destination", Repeated: true, MinItems: 1, MaxItems: 2,
			Schema: schema.Schema{
				Attributes: []schema.Attribute{
					{Name: "text", Type: text, PerEvent: true, Required: true},
					{Name: "data", Type: schema.Type{Kind: schema.KindAny}},
				},
			},
		}}},
		"broken": {Attributes: []schema.Attribute{{Name: "no good", Type: text}}},
		"unknown_kind": {Attributes: []schema.Attribute{
			{Name: "later", Type: schema.Type{Kind: 99}},
		}},
	}
}

// locatedDiagnostic is what the file "plugin.json" of a golden test holds.
type locatedDiagnostic struct {
	Sink    string
	Warning bool
	Summary string
	Detail  string
	Path    []any
}

// outcome loads the configuration of a golden test and says everything that the
// daemon would: with a file "sinks", its sinks are decoded too.
func outcome(t *testing.T, archive *txtar.Archive) (string, config.Diagnostics) {
	t.Helper()
	dir := t.TempDir()
	env := map[string]string{}
	path := ""
	var located []locatedDiagnostic
	for _, f := range archive.Files {
		switch {
		case f.Name == "env":
			for line := range strings.Lines(string(f.Data)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				env[name] = value
			}
			continue
		case f.Name == "plugin.json":
			if err := json.Unmarshal(f.Data, &located); err != nil {
				t.Fatal(err)
			}
			continue
		case f.Name == "want":
			continue
		case strings.HasSuffix(f.Name, ".hcl") && path == "":
			path = filepath.Join(dir, f.Name)
		case strings.HasSuffix(f.Name, ".hcl"):
			path = dir
		}
		name := filepath.Join(dir, f.Name)
		mode := os.FileMode(0o600)
		if strings.HasPrefix(f.Name, "plugins/") {
			mode = 0o700
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.ReplaceAll(f.Data, []byte(`\0a`), []byte("\x1b")), mode); err != nil {
			t.Fatal(err)
		}
	}
	if path == "" {
		path = dir
	}
	plugins := filepath.Join(dir, "plugins")
	if err := os.MkdirAll(plugins, 0o700); err != nil {
		t.Fatal(err)
	}
	schemas := testSchemas()
	for name := range schemas {
		if err := os.WriteFile(filepath.Join(plugins, "callbackd-sink-"+name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cfg, diags := config.Load(path, config.Options{
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		PluginDir: plugins,
	})
	if cfg != nil {
		for i := range cfg.Sinks {
			s := &cfg.Sinks[i]
			if declared, ok := schemas[s.Type]; ok {
				_, more := cfg.DecodeSink(s, declared)
				diags = append(diags, more...)
			}
			var found []schema.Diagnostic
			for _, l := range located {
				if l.Sink == s.Name {
					found = append(found, schema.Diagnostic{Warning: l.Warning, Summary: l.Summary, Detail: l.Detail, Path: steps(l.Path)})
				}
			}
			diags = append(diags, cfg.Locate(s, found)...)
		}
	}
	var b strings.Builder
	if err := diags.WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(b.String(), dir+string(filepath.Separator), "")
	return strings.ReplaceAll(got, dir, "."), diags
}

// steps makes whole numbers of the numbers of JSON.
func steps(path []any) []any {
	out := make([]any, len(path))
	for i, step := range path {
		if n, ok := step.(float64); ok {
			step = int(n)
		}
		out[i] = step
	}
	return out
}

// Each file in testdata/config is a configuration, with all that is said about
// it in its file "want". A file whose name begins with "good" has nothing wrong.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../testdata/config/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatalf("there are only %d golden files (%v)", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got, diags := outcome(t, archive)
			if good := strings.HasPrefix(filepath.Base(name), "good"); good == (len(diags) > 0) {
				t.Errorf("good is %v, but it says:\n%s", good, got)
			}
			for _, d := range diags {
				if d.Summary == "" || d.Detail == "" || d.File == "" {
					t.Errorf("it does not say what to do, or where: %+v", d)
				}
			}
			for _, secret := range []string{"s3cret", "hush-hush"} {
				if strings.Contains(got, secret) {
					t.Errorf("it shows a secret:\n%s", got)
				}
			}
			index := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want" })
			want := ""
			if index >= 0 {
				want = string(archive.Files[index].Data)
			}
			if got == want {
				return
			}
			if !*update {
				t.Fatalf("it says:\n%s\nbut should say:\n%s", got, want)
			}
			if index >= 0 {
				archive.Files = slices.Delete(archive.Files, index, index+1)
			}
			archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
			if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil { //nolint:gosec // test data
				t.Fatal(err)
			}
		})
	}
}

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
