package core_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/callbackd/callbackd/"

// arrows says which folders of the module the packages of a folder may import.
// What begins a path stands for all below it. Folders that are not listed (the
// demo, the benchmark) stand beside the program: they may import it, and nothing
// may import them.
var arrows = map[string][]string{
	"cmd":     {"core", "plugins"},
	"core":    {"core", "plugins"},
	"plugins": {"plugins"},
	"sinks":   {"plugins/sink"}, // and what is in the sink's own folder
}

// apart says which packages of one folder must not know of each other.
var apart = []struct{ pkg, not, why string }{
	{"core/ingest", "core/config", "its settings are handed to it"},
	{"core/deliver", "core/config", "its settings are handed to it"},
	{"core/pipeline", "core/config", "a match reaches it as a compiled function"},
	{"core/queue", "core/config", "its options are handed to it"},
	{"plugins/sink", "core", "sink authors import it alone"},
	{"plugins/sink", "plugins/host", "it is the other end of the line"},
}

// owners says which folder alone knows a library.
var owners = []struct{ library, owner string }{
	{"github.com/cockroachdb/pebble", "core/queue"},
	{"google.golang.org/grpc", "plugins"},
	{"google.golang.org/protobuf", "plugins"},
	{"github.com/hashicorp/go-plugin", "plugins"},
	{"github.com/hashicorp/hcl", "core/config"},
	{"github.com/zclconf/go-cty", "core/config"},
}

// exceptions are imports that a rule about owners would refuse.
var exceptions = []struct{ pkg, imported, why string }{
	{"core/queue", "google.golang.org/protobuf/encoding/protowire", "records are fields with numbers; it knows no messages and no gRPC"},
}

func excepted(pkg, imported string) bool {
	for _, e := range exceptions {
		if e.pkg == pkg && e.imported == imported {
			return true
		}
	}
	return false
}

// The packages know each other in one direction only, and each hazardous library
// is known in one place: cmd → core → plugins ← sinks.
func TestDirection(t *testing.T) {
	imports := readImports(t, "..")
	for _, wrong := range wrongImports(imports) {
		t.Error(wrong)
	}
	// A rule about what does not exist any more would hold nothing together.
	for folder, allowed := range arrows {
		for _, f := range append(allowed, folder) {
			mustExist(t, imports, f)
		}
	}
	for _, a := range apart {
		mustExist(t, imports, a.pkg)
		mustExist(t, imports, a.not)
	}
	for _, e := range exceptions {
		if !slices.Contains(imports[e.pkg], e.imported) {
			t.Errorf("%s does not import %s any more: remove the exception", e.pkg, e.imported)
		}
	}
	for _, o := range owners {
		used := false
		for pkg, list := range imports {
			used = used || within(pkg, o.owner) && slices.ContainsFunc(list, func(i string) bool { return within(i, o.library) })
		}
		if !used {
			t.Errorf("%s does not import %s any more: correct the rule", o.owner, o.library)
		}
	}
}

func mustExist(t *testing.T, imports map[string][]string, folder string) {
	t.Helper()
	for pkg := range imports {
		if within(pkg, folder) {
			return
		}
	}
	t.Errorf("there is no package in %s any more: correct the rule", folder)
}

// Each rule finds what breaks it, and nothing else.
func TestDirectionFindsWrongImports(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		wrong         bool
	}{
		{"cmd/callbackd", module + "core", false},
		{"cmd/callbackd", module + "plugins/schema", false},
		{"cmd/callbackd", module + "sinks/file", true},
		{"cmd/callbackd", "github.com/hashicorp/hcl/v2", true},
		{"core", module + "core/queue", false},
		{"core", module + "plugins/host", false},
		{"core", module + "cmd/callbackd", true},
		{"core/admin", module + "sinks/file", true},
		{"core", module + "demo", true},
		{"core", "github.com/cockroachdb/pebble/v2", true},
		{"core/queue", "github.com/cockroachdb/pebble/v2", false},
		{"core/queue/queuetest", "github.com/cockroachdb/pebble/v2/vfs", false},
		{"core/queues", "github.com/cockroachdb/pebble/v2", true},
		{"core/ingest", "github.com/zclconf/go-cty/cty", true},
		{"core/config/expr", "github.com/zclconf/go-cty/cty", false},
		{"core/config", "google.golang.org/grpc/codes", true},
		{"core/deliver", "google.golang.org/protobuf/proto", true},
		{"core/queue", "google.golang.org/protobuf/encoding/protowire", false},
		{"core/queue", "google.golang.org/protobuf/proto", true},
		{"core/event", "google.golang.org/protobuf/encoding/protowire", true},
		{"core", "github.com/hashicorp/go-plugin", true},
		{"core/ingest", module + "core/config", true},
		{"core/deliver", module + "core/config/expr", true},
		{"core/pipeline", module + "core/config", true},
		{"core/pipeline", module + "core/event", false},
		{"plugins/host", module + "core/event", true},
		{"plugins/sink", module + "core", true},
		{"plugins/sink", module + "plugins/internal/wire", false},
		{"plugins/sinktest", module + "plugins/host", false},
		{"plugins/host", "google.golang.org/grpc", false},
		{"sinks/file", module + "plugins/sink", false},
		{"sinks/file", module + "plugins/sinktest", true},
		{"sinks/file", module + "plugins/host", true},
		{"sinks/file", module + "core/event", true},
		{"sinks/file", module + "sinks/file/rotation", false},
		{"sinks/file", module + "sinks/slack", true},
		{"sinks/file", "google.golang.org/grpc", true},
		{"sinks/slack", "github.com/slack-go/slack", false},
		{"demo", module + "core/event", false},
		{"demo", module + "cmd/callbackd", true},
		{"core", "net/http", false},
	} {
		found := wrongImports(map[string][]string{c.pkg: {c.imported}})
		if (len(found) > 0) != c.wrong {
			t.Errorf("%s imports %s: wrong is %v, want %v %v", c.pkg, c.imported, !c.wrong, c.wrong, found)
		}
	}
}

// wrongImports tells which imports break a rule. Packages are named by their
// folder in the module, their imports as in the source.
func wrongImports(imports map[string][]string) (wrong []string) {
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		for _, imported := range imports[pkg] {
			complain := func(format string, args ...any) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: ", pkg, imported)+fmt.Sprintf(format, args...))
			}
			for _, o := range owners {
				if within(imported, o.library) && !within(pkg, o.owner) && !excepted(pkg, imported) {
					complain("only %s knows %s", o.owner, o.library)
				}
			}
			target, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			folder, _, _ := strings.Cut(pkg, "/")
			if !mayImport(folder, pkg, target) {
				complain("the direction is cmd → core → plugins ← sinks")
			}
			for _, a := range apart {
				if within(pkg, a.pkg) && within(target, a.not) {
					complain("%s does not know %s: %s", a.pkg, a.not, a.why)
				}
			}
		}
	}
	return wrong
}

// mayImport tells whether a package of a folder may import the target.
func mayImport(folder, pkg, target string) bool {
	allowed, listed := arrows[folder]
	if folder == "sinks" {
		// The rest of plugins is not for sink authors, nor are other sinks.
		name := strings.SplitN(pkg, "/", 3)
		return target == allowed[0] || len(name) > 1 && within(target, path.Join(name[:2]...))
	}
	if !listed {
		top, _, _ := strings.Cut(target, "/")
		_, program := arrows[top]
		return within(target, folder) || program && top != "cmd"
	}
	return slices.ContainsFunc(allowed, func(f string) bool { return within(target, f) })
}

// within tells whether a path is a folder or below it.
func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// readImports returns what the packages of the module import themselves, by
// folder. Tests do not count, files for other systems do: that is why the
// sources are read instead of asking the go command, which knows one system at a
// time.
func readImports(t *testing.T, root string) map[string][]string {
	t.Helper()
	imports := map[string][]string{}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skipped(root, name)
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(folder)
		imports[pkg] = slices.Grow(imports[pkg], len(file.Imports))
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if !slices.Contains(imports[pkg], imported) {
				imports[pkg] = append(imports[pkg], imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports
}

// skipped returns fs.SkipDir for folders whose Go files are not of this module.
func skipped(root, dir string) error {
	if dir == root {
		return nil
	}
	base := filepath.Base(dir)
	if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}
