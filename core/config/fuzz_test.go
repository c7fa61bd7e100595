package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/callbackd/callbackd/core/config"
)

func seeds(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("../../testdata/config/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden files", err)
	}
	for _, name := range files {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if strings.HasSuffix(file.Name, ".hcl") {
				f.Add(file.Data)
			}
		}
	}
}

// No input ends the process or panics, and what is wrong is told with a place.
func FuzzLoad(f *testing.F) {
	seeds(f)
	path := filepath.Join(f.TempDir(), "config.hcl")
	f.Fuzz(func(t *testing.T, src []byte) {
		if err := os.WriteFile(path, src, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, diags := config.Load(path, config.Options{
			LookupEnv: func(name string) (string, bool) { return "value-of-" + name, len(name)%2 == 0 },
			PluginDir: "/nowhere", SkipFileChecks: true,
		})
		if cfg != nil {
			schemas := testSchemas()
			for i := range cfg.Sinks {
				for _, declared := range schemas {
					settings, more := cfg.DecodeSink(&cfg.Sinks[i], declared)
					if (settings == nil) != more.HasErrors() {
						t.Fatalf("settings %v with %v", settings, more)
					}
					diags = append(diags, more...)
				}
			}
		}
		for _, d := range diags {
			if d.File != path || d.Start.Line < 1 || d.Start.Column < 1 {
				t.Fatalf("no place: %+v", d)
			}
		}
		var b bytes.Buffer
		if err := diags.WriteText(&b, false); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.String() {
			if r < ' ' && r != '\n' || r == '\x7f' {
				t.Fatalf("control character %q in %q", r, b.String())
			}
		}
		if err := diags.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
	})
}

// Formatting keeps the meaning, and is done when it was done once.
func FuzzFormat(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		out, diags := config.Format("f.hcl", src)
		if diags.HasErrors() {
			if out != nil {
				t.Fatal("a result in spite of errors")
			}
			return
		}
		again, diags := config.Format("f.hcl", out)
		if diags.HasErrors() {
			t.Fatalf("%q became %q, which is refused: %v", src, out, diags)
		}
		if !bytes.Equal(out, again) {
			t.Fatalf("%q became %q, then %q", src, out, again)
		}
	})
}

func TestFormat(t *testing.T) {
	t.Parallel()
	got, diags := config.Format("f.hcl", []byte("a   =  1\nlonger = 2\nb{\nc=[1,2]\n}"))
	if want := "a      = 1\nlonger = 2\nb {\n  c = [1, 2]\n}\n"; string(got) != want || len(diags) > 0 {
		t.Errorf("Format = %q, %v", got, diags)
	}
	heredoc := "a = <<-EOT\n    x ${ f( 1 ,\n      2 ) }\n  y\n  EOT\n"
	if got, diags := config.Format("f.hcl", []byte(heredoc)); len(diags) == 0 {
		if again, _ := config.Format("f.hcl", got); !bytes.Equal(got, again) {
			t.Errorf("a heredoc is not stable: %q", got)
		}
	}
	for name, src := range map[string]string{
		"syntax": "a = = \n", "deep": "a = " + strings.Repeat("(", 1000), "large": strings.Repeat("#\n", 1<<20),
		"secret": "token = \"s3cret\" \"x\"\n",
	} {
		got, diags := config.Format("f.hcl", []byte(src))
		if got != nil || !diags.HasErrors() || diags[0].File != "f.hcl" || diags[0].Start.Line != 1 || strings.Contains(diags.Error(), "s3cret") {
			t.Errorf("%s: %q %v", name, got, diags)
		}
	}
}
