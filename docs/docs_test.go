// Package docs_test holds the documentation to the code: what a page names has
// to be there, and what operators see of the code has to be on a page.
package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// root is the top of the repository, seen from this folder.
const root = ".."

// pages returns the text of README.md and of all pages, by path from the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names := []string{"README.md"}
	err := fs.WalkDir(os.DirFS(root), "docs", func(name string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".md") {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, name := range names {
		out[name] = read(t, name)
	}
	if len(out) < 8 {
		t.Fatalf("found only %d pages: %v", len(out), names)
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// goFiles parses the files of the product that are not tests, by path from the
// root. The tools demo, bench and e2e are not part of it.
func goFiles(t *testing.T, mode parser.Mode) map[string]*ast.File {
	t.Helper()
	out := make(map[string]*ast.File)
	for _, folder := range []string{"cmd", "core", "plugins", "sinks"} {
		err := fs.WalkDir(os.DirFS(root), folder, func(name string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".pb.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(name)), nil, mode)
			out[name] = file
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// literals calls f with each string literal of a file.
func literals(file *ast.File, f func(text string)) {
	ast.Inspect(file, func(n ast.Node) bool {
		if text, ok := literal(n); ok {
			f(text)
		}
		return true
	})
}

func literal(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

var (
	fencePattern  = regexp.MustCompile("(?ms)^```.*?^```$")
	codePattern   = regexp.MustCompile("`[^`\n]*`")
	linkPattern   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headerPattern = regexp.MustCompile(`(?m)^#{1,6} +(.+)$`)
)

func TestLinks(t *testing.T) {
	t.Parallel()
	checked := 0
	for name, text := range pages(t) {
		text = fencePattern.ReplaceAllString(text, "")
		// A link may have code as its text, but is not one within code.
		text = codePattern.ReplaceAllString(text, "code")
		for _, m := range linkPattern.FindAllStringSubmatch(text, -1) {
			link, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: the link %q is none: %v", name, m[1], err)
				continue
			}
			if link.IsAbs() {
				continue
			}
			checked++
			target := name
			if link.Path != "" {
				target = path.Join(path.Dir(name), link.Path)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(target))); err != nil || strings.HasPrefix(target, "../") {
				t.Errorf("%s links to %s, which is not there", name, m[1])
				continue
			}
			if link.Fragment != "" && strings.HasSuffix(target, ".md") && !slices.Contains(anchors(read(t, target)), link.Fragment) {
				t.Errorf("%s links to %s, but %s has no such heading", name, m[1], target)
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d links were found", checked)
	}
}

// anchors are the fragments of a page's headings, as GitHub makes them.
func anchors(text string) []string {
	var out []string
	for _, m := range headerPattern.FindAllStringSubmatch(fencePattern.ReplaceAllString(text, ""), -1) {
		out = append(out, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(m[1])))
	}
	return out
}

var (
	metricPattern = regexp.MustCompile(`^callbackd_[a-z0-9_]*[a-z0-9]$`)
	inTextPattern = regexp.MustCompile(`\bcallbackd_[a-z0-9_]*[a-z0-9]`)
	suffixPattern = regexp.MustCompile(`_(bucket|count|sum)$`)
)

// pluginMetrics are the full names of the metrics that the sinks keep.
func pluginMetrics(t *testing.T) (out []string) {
	t.Helper()
	for name, file := range goFiles(t, parser.SkipObjectResolution) {
		folder, sinks := strings.CutPrefix(path.Dir(name), "sinks/")
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !sinks || len(call.Args) < 2 {
				return true
			}
			if made, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"NewCounter", "NewGauge", "NewHistogram"}, made.Sel.Name) {
				if metric, ok := literal(call.Args[0]); ok {
					out = append(out, "callbackd_plugin_"+folder+"_"+metric)
				}
			}
			return true
		})
	}
	if len(out) == 0 {
		t.Error("no metrics were found in the sinks")
	}
	return out
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	inCode := make(map[string]bool)
	for name, file := range goFiles(t, parser.SkipObjectResolution) {
		literals(file, func(text string) {
			if metricPattern.MatchString(text) && !strings.HasPrefix(name, "plugins/sinktest/") {
				inCode[text] = true
			}
		})
	}
	for _, metric := range pluginMetrics(t) {
		inCode[metric] = true
	}
	if len(inCode) < 20 {
		t.Fatalf("only %d metrics were found in the code", len(inCode))
	}
	inDocs := make(map[string]bool)
	for name, text := range pages(t) {
		for _, metric := range inTextPattern.FindAllString(text, -1) {
			if metric == "callbackd_sink" || strings.HasPrefix(metric, "callbackd_plugin_syslog") { // the Python module, the tutorial's sink
				continue
			}
			if base := suffixPattern.ReplaceAllString(metric, ""); inCode[base] {
				metric = base
			}
			if !inCode[metric] && metric != "callbackd_plugin" { // the beginning of those of plugins
				t.Errorf("%s names the metric %s, which the code does not have", name, metric)
			}
			if name == "docs/operations.md" {
				inDocs[metric] = true
			}
		}
	}
	for _, metric := range slices.Sorted(maps.Keys(inCode)) {
		if !inDocs[metric] {
			t.Errorf("docs/operations.md does not have the metric %s", metric)
		}
	}
}

// TestLogLines: whoever searches for a line of the log finds it.
func TestLogLines(t *testing.T) {
	t.Parallel()
	operations := read(t, "docs/operations.md")
	found := 0
	for name, file := range goFiles(t, parser.SkipObjectResolution) {
		logs := strings.HasPrefix(name, "core/") || strings.HasPrefix(name, "plugins/host/") || strings.HasPrefix(name, "plugins/sink/")
		if !logs || strings.HasSuffix(path.Dir(name), "test") { // helpers of tests report, too
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Info", "Warn", "Error"}, method.Sel.Name) {
				return true
			}
			if line, ok := literal(call.Args[0]); ok {
				found++
				if !strings.Contains(operations, "| `"+line+"` | "+strings.ToLower(method.Sel.Name)+" |") {
					t.Errorf("docs/operations.md does not have the log line %q of %s, at level %s", line, name, strings.ToLower(method.Sel.Name))
				}
			}
			return true
		})
	}
	if found < 30 {
		t.Errorf("only %d log lines were found in the code", found)
	}
}

// TestAlerts lets promtool judge the alerts that the manual recommends.
func TestAlerts(t *testing.T) {
	t.Parallel()
	_, rules, found := strings.Cut(read(t, "docs/operations.md"), "\n```yaml\ngroups:")
	rules, _, closed := strings.Cut(rules, "\n```\n")
	if !found || !closed || !strings.Contains(rules, "- alert: ") {
		t.Fatal("docs/operations.md has no alerts")
	}
	promtool := os.Getenv("CALLBACKD_PROMTOOL")
	if promtool == "" {
		t.Skip("promtool is not there: make check installs it and sets CALLBACKD_PROMTOOL")
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte("groups:"+rules+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

// commandPattern finds callbackd where a shell would run it: at the beginning of
// a line or of a code span, behind a path, a prompt or a pipe.
var commandPattern = regexp.MustCompile("(?m)(?:^|[|;&(=]|`)[ \\t]*(?:[$] )?(?:[\\w./-]*/)?callbackd ([a-z][a-z-]*)\\b")

func TestCommands(t *testing.T) {
	t.Parallel()
	commands := []string{"help", "completion"} // cobra's own
	for name, file := range goFiles(t, parser.SkipObjectResolution) {
		if !strings.HasPrefix(name, "cmd/callbackd/") {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if field, ok := n.(*ast.KeyValueExpr); ok {
				key, isIdent := field.Key.(*ast.Ident)
				if use, ok := literal(field.Value); ok && isIdent && key.Name == "Use" {
					command, _, _ := strings.Cut(use, " ")
					commands = append(commands, command)
				}
			}
			return true
		})
	}
	if !slices.Contains(commands, "run") || !slices.Contains(commands, "validate") {
		t.Fatalf("the commands were not found in the code, only %v", commands)
	}
	found := 0
	for name, text := range pages(t) {
		code := slices.Concat(fencePattern.FindAllString(text, -1), codePattern.FindAllString(fencePattern.ReplaceAllString(text, ""), -1))
		for _, part := range code {
			for _, m := range commandPattern.FindAllStringSubmatch(part, -1) {
				found++
				if !slices.Contains(commands, m[1]) {
					t.Errorf("%s names the command callbackd %s, which is not there", name, m[1])
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d commands were found in the pages", found)
	}
}
