package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/callbackd/callbackd/core/config/expr"
)

// sensitive marks values that are never shown.
type sensitive struct{}

// maxFunctionFile bounds what file reads.
const maxFunctionFile = 1 << 20

var envPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// functionNames are the functions that only a configuration has.
func functionNames() []string { return []string{"env", "file"} }

// configFunctions returns env and file. What they return is sensitive.
func configFunctions(files *sources, dir string, lookup func(string) (string, bool)) expr.Functions {
	return expr.Functions{
		"env": function.New(&function.Spec{
			Params:   []function.Parameter{{Name: "name", Type: cty.String}},
			VarParam: &function.Parameter{Name: "default", Type: cty.String},
			Type:     function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				if len(args) > 2 {
					return cty.NilVal, errors.New(`it takes a name and, if you want, a default: env("NAME", "default")`)
				}
				name := args[0].AsString()
				if !envPattern.MatchString(name) {
					return cty.NilVal, function.NewArgErrorf(0, "the name of an environment variable has letters, digits and _")
				}
				text, ok := lookup(name)
				if !ok {
					if len(args) == 1 {
						return cty.NilVal, fmt.Errorf("the environment variable %s is not set; set it, or give a default: env(%q, \"default\")", name, name)
					}
					text = args[1].AsString()
				}
				return secretText(files, text, "the environment variable "+name)
			},
		}),
		"file": function.New(&function.Spec{
			Params: []function.Parameter{{Name: "path", Type: cty.String}},
			Type:   function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				path, err := resolve(dir, args[0].AsString())
				if err != nil {
					return cty.NilVal, err
				}
				content, err := readFile(path, maxFunctionFile)
				if err != nil {
					return cty.NilVal, fmt.Errorf("the file %s cannot be read: %s", path, reason(err))
				}
				text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
				return secretText(files, text, "the file "+path)
			},
		}),
	}
}

// secretText is text from outside. HCL normalises text, which would change a key
// silently.
func secretText(files *sources, text, from string) (cty.Value, error) {
	if !utf8.ValidString(text) {
		return cty.NilVal, fmt.Errorf("%s does not hold UTF-8 text", from)
	}
	v := cty.StringVal(text)
	if v.AsString() != text {
		return cty.NilVal, fmt.Errorf("%s holds characters that are not in Unicode's normal form C; convert it", from)
	}
	files.addSecret(text)
	return v.Mark(sensitive{}), nil
}
