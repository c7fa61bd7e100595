// Package scaffold writes the beginning of a sink plugin: a program that works, its
// test, an example configuration and a README.
//
// It promises that nothing is overwritten, and that what it writes builds and
// passes the contract of plugins as it is. It must not run any tool.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/callbackd/callbackd/plugins/schema"
)

// Files that end in templateSuffix are templates, all others are written as they
// are.
//
//go:embed all:go all:python
var languages embed.FS

const templateSuffix = ".tmpl"

// The languages.
const (
	Go     = "go"
	Python = "python"
)

// Options say what to write.
type Options struct {
	// Name is the sink type.
	Name string
	// Lang is Go or Python.
	Lang string
	// Dir is the folder to write to. It must not be there, or be empty.
	Dir string
	// SDK is a checkout of callbackd's module to build against, for Go. Empty: the
	// published module.
	SDK string
	// Version is the version of callbackd. The published module is required in it
	// where it is one that can have been published.
	Version string
}

// values are what templates see.
type values struct {
	Name string
	// Env is the name as a part of the name of an environment variable.
	Env string
	// SDK tells whether it is built against a checkout.
	SDK bool
	// Version is the version of the published module; empty: not known.
	Version string
}

// Write writes the files, and returns their names, sorted.
func Write(o Options) ([]string, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	files, err := o.render()
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(files)), write(o.Dir, files)
}

func (o Options) check() error {
	switch {
	case !schema.ValidName(o.Name):
		return errors.New("a sink type has 1 to 63 letters, digits, - and _, and begins with a letter or _")
	case o.Lang != Go && o.Lang != Python:
		return fmt.Errorf("there is no template for %q: there are %s and %s", o.Lang, Go, Python)
	case o.SDK != "" && o.Lang != Go:
		return fmt.Errorf("a checkout of the SDK is for %s: a sink in %s has all it needs in its own folder", Go, o.Lang)
	}
	return nil
}

// render makes the content of all files, by name.
func (o Options) render() (map[string][]byte, error) {
	v := values{
		Name: o.Name, Env: strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_")),
		SDK: o.SDK != "", Version: published(o.Version),
	}
	files := map[string][]byte{}
	err := fs.WalkDir(languages, o.Lang, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Name() == "__pycache__": // left by whoever ran the templates
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		content, err := languages.ReadFile(name)
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(name, o.Lang+"/")
		if target, ok := strings.CutSuffix(name, templateSuffix); ok {
			name = strings.ReplaceAll(target, "NAME", o.Name)
			if content, err = expand(name, content, v); err != nil {
				return err
			}
		}
		files[name] = content
		return nil
	})
	if err == nil && o.Lang == Go {
		err = o.addModule(files)
	}
	return files, err
}

func expand(name string, content []byte, v values) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").Parse(string(content))
	if err != nil {
		return nil, fmt.Errorf("the template of %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, v); err != nil {
		return nil, fmt.Errorf("the template of %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// write creates the files. What is there already is never touched.
func write(dir string, files map[string][]byte) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // sources are for everybody to read
			return err
		}
	case err != nil:
		return fmt.Errorf("%s cannot be written to: %w", dir, err)
	case len(entries) > 0:
		return fmt.Errorf("%s is there already and not empty: nothing was written", dir)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		target := filepath.Join(dir, filepath.FromSlash(name))
		if folder := path.Dir(name); folder != "." {
			if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { //nolint:gosec // as above
				return err
			}
		}
		mode := fs.FileMode(0o644)
		if bytes.HasPrefix(files[name], []byte("#!")) {
			mode = 0o755
		}
		if err := create(target, files[name], mode); err != nil {
			return err
		}
	}
	return nil
}

func create(name string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}
