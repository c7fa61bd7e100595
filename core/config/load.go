package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/callbackd/callbackd/plugins/schema"
)

const (
	// maxFiles bounds how many files a folder may hold.
	maxFiles = 200
	// testSuffix is the end of the names of files with tests; they are not part of
	// the configuration.
	testSuffix = ".test.hcl"
)

// Options are what a configuration depends on besides its files.
type Options struct {
	// LookupEnv looks up an environment variable. Nil: os.LookupEnv.
	LookupEnv func(name string) (string, bool)
	// PluginDir is the default of plugin_dir, absolute: the folder of the daemon's
	// program. Empty: plugin_dir has to be set where a sink needs it.
	PluginDir string
	// SkipFileChecks leaves unchecked whether files that the configuration names
	// exist: the programs of plugins, certificates.
	SkipFileChecks bool
}

// Load reads the configuration at path: a file, or all *.hcl of a folder except
// *.test.hcl, in the order of their names. It tells everything that is wrong, not
// only the first.
//
// Where the diagnostics have errors, the Config must not be run. It is nil where
// the files could not be read or parsed; else its sinks can still be decoded, to
// tell what is wrong with their settings too.
func Load(path string, options Options) (*Config, Diagnostics) {
	var p problems
	files, dir := readFiles(path, &p)
	src := &sources{files: files}
	var bodies []*hclsyntax.Body
	for _, f := range files {
		body, diags := parse(f)
		p.add(diags...)
		if diags.HasErrors() {
			src.hideUnparsed(f)
		}
		bodies = append(bodies, body)
	}
	if p.list.HasErrors() {
		// The other files' warnings quote lines too.
		return nil, src.diagnostics(&p)
	}
	d := newDecoder(src, dir, options)
	d.problems = p
	cfg := d.decode(bodies)
	// Which settings of a sink are secret is known only when its plugin was asked.
	// Until then none of them is quoted.
	show := src.veil()
	for _, body := range bodies {
		for _, b := range body.Blocks {
			src.hideSettings(b)
		}
	}
	diags := src.diagnostics(&d.problems)
	show()
	return cfg, diags
}

func parse(f *sourceFile) (*hclsyntax.Body, hcl.Diagnostics) {
	if diags := guard(f.src, f.name); diags.HasErrors() {
		return nil, diags
	}
	file, diags := hclsyntax.ParseConfig(f.src, f.name, hcl.InitialPos)
	body, _ := file.Body.(*hclsyntax.Body)
	return body, firstError(diags)
}

// firstError drops all but the first of a parser's errors: one missing quote or
// brace makes it stumble over every line that follows.
func firstError(diags hcl.Diagnostics) hcl.Diagnostics {
	var first *hcl.Diagnostic
	var kept hcl.Diagnostics
	errors := 0
	for _, d := range diags {
		if d.Severity != hcl.DiagError || d.Subject == nil {
			kept = append(kept, d)
			continue
		}
		if errors++; first == nil || d.Subject.Start.Byte < first.Subject.Start.Byte {
			first = d
		}
	}
	if first == nil {
		return kept
	}
	if errors > 1 {
		whole := *first
		whole.Detail += "\nOften a quote, a brace or a parenthesis is missing at or before this place. What else may be wrong is told once it is there."
		first = &whole
	}
	return append(kept, first)
}

// readFiles reads the files of a configuration and tells its folder, absolute.
func readFiles(path string, p *problems) (files []*sourceFile, dir string) {
	fail := func(name, summary string, err error) {
		detail := ""
		if err != nil {
			detail = sentence(reason(err))
		}
		p.add(&hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: summary, Detail: detail,
			Subject: &hcl.Range{Filename: name},
		})
	}
	info, err := os.Stat(path)
	if err != nil {
		fail(path, "The configuration cannot be read", err)
		return nil, ""
	}
	names := []string{path}
	dir = filepath.Dir(path)
	if info.IsDir() {
		dir = path
		if names, err = listFiles(path); err != nil {
			fail(path, "The configuration's folder cannot be read", err)
			return nil, ""
		}
		if len(names) == 0 {
			fail(path, "The folder holds no configuration", errors.New("a configuration is one or more files whose names end in .hcl"))
			return nil, ""
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		fail(path, "The configuration's folder cannot be found", err)
		return nil, ""
	}
	for _, name := range names {
		src, err := readFile(name, maxFileBytes)
		if err != nil {
			fail(name, "The file cannot be read", err)
			continue
		}
		files = append(files, &sourceFile{name: name, src: src})
	}
	return files, dir
}

func listFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasSuffix(name, ".hcl") && !strings.HasSuffix(name, testSuffix) &&
			!strings.HasPrefix(name, ".") && !entry.IsDir() {
			names = append(names, filepath.Join(dir, name))
		}
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("it holds %d configuration files, at most %d are read", len(names), maxFiles)
	}
	slices.Sort(names)
	return names, nil
}

// readFile reads a regular file of at most limit bytes. A pipe or a device, which
// may never end, is refused.
func readFile(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	src, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(src)) > limit {
		return nil, fmt.Errorf("it is larger than %s", schema.FormatSize(limit))
	}
	return src, nil
}

// reason is the text of err without the path, which the user sees already.
func reason(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}

// sentence makes a sentence of the text of an error.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return s
	}
	if c := s[0]; c >= 'a' && c <= 'z' {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	if strings.HasSuffix(s, ".") || strings.HasSuffix(s, "?") {
		return s
	}
	return s + "."
}
