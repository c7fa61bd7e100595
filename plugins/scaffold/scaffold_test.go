package scaffold_test

import (
	"context"
	"go/format"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/scaffold"
	"github.com/callbackd/callbackd/plugins/sinktest"
)

// patience bounds what is run of a toolchain.
const patience = 4 * time.Minute

// root is this checkout.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// content reads all files of a folder.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		out[strings.TrimPrefix(name, dir+string(filepath.Separator))] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func run(t *testing.T, dir string, env []string, command ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, append(os.Environ(), env...), 10*time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// What is written builds, is sound, and keeps the contract as it is, without a
// network.
func TestGo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "with a space", "sink")
	files, err := scaffold.Write(scaffold.Options{Name: "my-Sink_2", Lang: scaffold.Go, Dir: dir, SDK: "../.."})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{".gitignore", "Makefile", "README.md", "config.hcl", "go.mod", "go.sum", "main.go", "main_test.go"}
	if !slices.Equal(files, want) {
		t.Errorf("files %v", files)
	}
	written := content(t, dir)
	if got := slices.Sorted(maps.Keys(written)); !slices.Equal(got, want) {
		t.Errorf("written %v", got)
	}
	for name, text := range written {
		if strings.Contains(text, "{{") || strings.Contains(text, "<no value>") || !strings.HasSuffix(text, "\n") {
			t.Errorf("%s:\n%s", name, text)
		}
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		if out, err := format.Source([]byte(text)); err != nil || string(out) != text {
			t.Errorf("%s is not formatted: %v", name, err)
		}
	}
	if n := linesOfCode(written["main.go"]); n > 100 {
		t.Errorf("the beginning of a sink has %d lines of code", n)
	}
	env := []string{"GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off"}
	run(t, dir, env, "go", "vet", "./...")
	run(t, dir, env, "go", "build", "-o", "callbackd-sink-my-Sink_2", ".")
	run(t, dir, env, "go", "test", "-count=1", "-timeout=3m", "./...")
}

func linesOfCode(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			n++
		}
	}
	return n
}

func TestPython(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() // an empty folder is as good as none
	files, err := scaffold.Write(scaffold.Options{Name: "mine", Lang: scaffold.Python, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".gitignore", "README.md", "config.hcl", "sink.py", "test_sink.py", "callbackd_sink/__init__.py"} {
		if !slices.Contains(files, name) {
			t.Errorf("%s is not written", name)
		}
	}
	for name, text := range content(t, dir) {
		if strings.Contains(name, "pycache") || strings.Contains(text, "{{.") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "sink.py")); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("sink.py cannot be run: %v, %v", info.Mode(), err)
	}
	python := os.Getenv("CALLBACKD_PYTHON")
	if python == "" {
		t.Skip("Python with gRPC is not there: make check installs it and sets CALLBACKD_PYTHON")
	}
	run(t, dir, []string{"PYTHONDONTWRITEBYTECODE=1"}, python, "-m", "unittest")
	receiver := sinktest.NewReceiver(t)
	sinktest.Run(t, sinktest.Options{
		Command:  []string{python, filepath.Join(dir, "sink.py")},
		Env:      []string{"PYTHONDONTWRITEBYTECODE=1"},
		Settings: map[string]any{"url": receiver.URL(), "token": "a-secret-token"},
		Receiver: receiver,
		// Those that depend on what is written here. The module that comes with it is
		// held to all of them where it is kept.
		Rules: []string{
			"deliver", "failure", "mixed-batch", "empty-body", "largest-body", "binary-body", "odd-attributes", "cancelled-call",
			"settings", "validate-only", "settings-missing", "settings-type", "settings-refused", "describe", "close", "secrets",
		},
	})
}

// Nothing that is there is touched.
func TestNothingIsOverwritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, lang := range []string{scaffold.Go, scaffold.Python} {
		for _, target := range []string{dir, filepath.Join(dir, "mine")} {
			if _, err := scaffold.Write(scaffold.Options{Name: "x", Lang: lang, Dir: target}); err == nil {
				t.Errorf("%s was written to", target)
			}
		}
	}
	if got := content(t, dir); len(got) != 1 || got["mine"] != "kept" {
		t.Errorf("now there is %v", got)
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	other, relative, none := t.TempDir(), t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{
		other:    "module example.com/other\n",
		relative: "module github.com/callbackd/callbackd\n\nreplace example.com/x => ../x\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, o := range map[string]scaffold.Options{
		"a sink type has 1 to 63":         {Name: "a/b", Lang: scaffold.Go},
		"begins with a letter":            {Name: "", Lang: scaffold.Go},
		`no template for "perl"`:          {Name: "a", Lang: "perl"},
		"a checkout of the SDK is for go": {Name: "a", Lang: scaffold.Python, SDK: root(t)},
		"it is not of the module":         {Name: "a", Lang: scaffold.Go, SDK: other},
		"which is nowhere else":           {Name: "a", Lang: scaffold.Go, SDK: relative},
		"the checkout of callbackd":       {Name: "a", Lang: scaffold.Go, SDK: none},
	} {
		o.Dir = filepath.Join(t.TempDir(), "x")
		files, err := scaffold.Write(o)
		if files != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", want, files, err)
		}
		if _, err := os.Stat(o.Dir); err == nil {
			t.Errorf("%s: the folder was made", want)
		}
	}
}

// The module is required in the version of callbackd where that can be had.
func TestPublishedModule(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"v1.2.3": "require github.com/callbackd/callbackd v1.2.3\n", "v1.2.3-rc.1": "require github.com/callbackd/callbackd v1.2.3-rc.1\n",
		"dev": "", "v1.2.3-4-gabcdef1": "", "v1.2.3-dirty": "", "abcdef1": "", "": "", "v1.2": "", "v01.2.3": "",
	} {
		dir := filepath.Join(t.TempDir(), "x")
		if _, err := scaffold.Write(scaffold.Options{Name: "a", Lang: scaffold.Go, Dir: dir, Version: version}); err != nil {
			t.Fatal(err)
		}
		files := content(t, dir)
		_, got, _ := strings.Cut(files["go.mod"], "\n\nrequire ")
		if got != strings.TrimPrefix(want, "require ") || !strings.HasPrefix(files["go.mod"], "module callbackd-sink-a\n\ngo 1.") {
			t.Errorf("%s: %s", version, files["go.mod"])
		}
		readme := files["README.md"]
		if !strings.Contains(readme, "go mod tidy") || strings.Contains(readme, "@latest") != (want == "") || strings.Contains(readme, "replace") {
			t.Errorf("%s:\n%s", version, readme)
		}
		if _, ok := files["go.sum"]; ok {
			t.Error("there is a go.sum")
		}
	}
}
