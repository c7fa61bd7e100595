package expr

import (
	"errors"
	"fmt"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// builtins lists the functions. All are pure, and what they make is bounded.
func builtins() []builtin {
	all := []builtin{
		{name: "raw", usage: "raw(value)", min: 1, max: 1, doc: "The value, not escaped in a sink's setting."},
		{name: "try", usage: "try(value, …)", min: 1, max: -1, doc: "The first value that can be computed."},
		{name: "can", usage: "can(value)", min: 1, max: 1, doc: "Whether the value can be computed."},
	}
	all = append(all, textFunctions()...)
	all = append(all, patternFunctions()...)
	all = append(all, numberFunctions()...)
	all = append(all, collectionFunctions()...)
	all = append(all, encodingFunctions()...)
	return all
}

func textFunctions() []builtin {
	return []builtin{
		ofText("upper", "upper(text)", "The text in upper case.", canText,
			func(s []string) (value, error) { return textValue(clean(strings.ToUpper(s[0]))), nil }),
		ofText("lower", "lower(text)", "The text in lower case.", canText,
			func(s []string) (value, error) { return textValue(clean(strings.ToLower(s[0]))), nil }),
		ofText("startswith", "startswith(text, prefix)", "Whether the text starts with the prefix.", canBool,
			func(s []string) (value, error) { return boolean(strings.HasPrefix(s[0], s[1])), nil }),
		ofText("endswith", "endswith(text, suffix)", "Whether the text ends with the suffix.", canBool,
			func(s []string) (value, error) { return boolean(strings.HasSuffix(s[0], s[1])), nil }),
		ofText("strcontains", "strcontains(text, part)", "Whether the part is in the text.", canBool,
			func(s []string) (value, error) { return boolean(strings.Contains(s[0], s[1])), nil }),
		ofText("trimprefix", "trimprefix(text, prefix)", "The text without the prefix.", canText,
			func(s []string) (value, error) { return textValue(clean(strings.TrimPrefix(s[0], s[1]))), nil }),
		ofText("trimsuffix", "trimsuffix(text, suffix)", "The text without the suffix.", canText,
			func(s []string) (value, error) { return textValue(clean(strings.TrimSuffix(s[0], s[1]))), nil }),
		ofText("trimspace", "trimspace(text)", "The text without the white space around it.", canText,
			func(s []string) (value, error) { return textValue(clean(strings.TrimSpace(s[0]))), nil }),
		ofText("trim", "trim(text, characters)", "The text without any of the characters at its ends.", canText,
			func(s []string) (value, error) { return textValue(clean(strings.Trim(s[0], s[1]))), nil }),
		ofText("chomp", "chomp(text)", "The text without the line breaks at its end.", canText,
			func(s []string) (value, error) { return textValue(clean(strings.TrimRight(s[0], "\r\n"))), nil }),
		ofText("replace", "replace(text, old, new)", "The text with every old replaced by new.", canText,
			func(s []string) (value, error) {
				if grown := strings.Count(s[0], s[1]) * (len(s[2]) - len(s[1])); len(s[0])+grown > MaxText {
					return value{}, errTextTooLong
				}
				return textValue(clean(strings.ReplaceAll(s[0], s[1], s[2]))), nil
			}),
		ofText("split", "split(separator, text)", "The list of the parts of the text.", canList,
			func(s []string) (value, error) {
				if strings.Count(s[1], s[0]) > MaxWork/valueCost {
					return value{}, errTooMuchWork
				}
				parts := strings.Split(s[1], s[0])
				elems := make([]value, len(parts))
				for i, part := range parts {
					elems[i] = textValue(clean(part))
				}
				return listValue(elems), nil
			}),
		{name: "join", usage: "join(separator, list)", min: 2, max: 2, kinds: canText, run: joinFunc, doc: "The texts of the list, the separator between them."},
		{
			name: "title", usage: "title(text)", min: 1, max: 1, kinds: canText, run: std(stdlib.TitleFunc, ""),
			doc: "The text, each word with a capital letter.",
		},
		{
			name: "substr", usage: "substr(text, offset, length)", min: 3, max: 3, kinds: canText, run: std(stdlib.SubstrFunc, ""),
			doc: "Characters of the text; a negative offset counts from the end, the length -1 means all the rest.",
		},
		{
			name: "indent", usage: "indent(spaces, text)", min: 2, max: 2, kinds: canText, run: indentFunc,
			doc: "The text with spaces before all lines but the first.",
		},
		{
			name: "format", usage: "format(format, value, …)", min: 1, max: -1, takesNull: true, kinds: canText, run: formatFunc,
			doc: "The values written as the format says: %s, %d, %.2f, %q, %v and so on.",
		},
		ofText("formatdate", "formatdate(format, time)", `The RFC 3339 time, written like "DD MMM YYYY hh:mm".`, canText,
			viaStd(stdlib.FormatDateFunc, "a format like \"YYYY-MM-DD hh:mm\" and a time in RFC 3339 are required")),
		ofText("timeadd", "timeadd(time, duration)", `The RFC 3339 time, moved by a duration like "-1h".`, canText,
			viaStd(stdlib.TimeAddFunc, "a time in RFC 3339 and a duration like \"1h30m\" are required")),
		{
			name: "tostring", usage: "tostring(value)", min: 1, max: 1, kinds: canText, doc: "The number or bool as text.",
			run: func(_ *frame, args []value) (value, error) {
				s, err := args[0].needText()
				return textValue(s), err
			},
		},
	}
}

// ofText makes a function that takes nothing but text, as many as its usage has.
func ofText(name, usage, doc string, kinds kinds, run func([]string) (value, error)) builtin {
	n := strings.Count(usage, ",") + 1
	return builtin{
		name: name, usage: usage, doc: doc, min: n, max: n, kinds: kinds,
		run: func(_ *frame, args []value) (value, error) {
			texts := make([]string, len(args))
			for i, x := range args {
				var err error
				if texts[i], err = x.needText(); err != nil {
					return value{}, err
				}
			}
			return run(texts)
		},
	}
}

func (x value) needText() (string, error) {
	s, ok := x.text()
	if !ok {
		return "", typeError{want: "text", got: x}
	}
	return s, nil
}

// viaStd is std for functions of text.
func viaStd(fn function.Function, instead string) func([]string) (value, error) {
	run := std(fn, instead)
	return func(texts []string) (value, error) {
		args := make([]value, len(texts))
		for i, s := range texts {
			args[i] = textValue(s)
		}
		return run(nil, args)
	}
}

// std runs a function of cty's standard library. Its errors may quote what it
// was given, which may be of the event; instead is then what is told.
func std(fn function.Function, instead string) func(*frame, []value) (value, error) {
	params, more := fn.Params(), fn.VarParam()
	return func(f *frame, args []value) (value, error) {
		vals := make([]cty.Value, len(args))
		for i, x := range args {
			val, err := x.toCty(f)
			if err != nil {
				return value{}, err
			}
			param := more
			if i < len(params) {
				param = &params[i]
			}
			if vals[i], err = convert.Convert(val, param.Type); err != nil {
				return value{}, fmt.Errorf("argument %d: %w", i+1, err)
			}
		}
		out, err := fn.Call(vals)
		switch {
		case err != nil && instead != "":
			return value{}, errors.New(instead)
		case err != nil:
			return value{}, err
		}
		return fromCty(out)
	}
}

func joinFunc(f *frame, args []value) (value, error) {
	sep, err := args[0].needText()
	if err != nil {
		return value{}, err
	}
	elems, err := args[1].needList(f)
	if err != nil {
		return value{}, err
	}
	parts := make([]string, len(elems))
	length := 0
	for i, x := range elems {
		if parts[i], err = x.needText(); err != nil {
			return value{}, err
		}
		if length += len(parts[i]) + len(sep); length > MaxText+len(sep) {
			return value{}, errTextTooLong
		}
	}
	return textValue(clean(strings.Join(parts, sep))), nil
}

func indentFunc(f *frame, args []value) (value, error) {
	spaces, err := args[0].toNumber()
	if err != nil {
		return value{}, err
	}
	s, err := args[1].needText()
	if err != nil {
		return value{}, err
	}
	const widest = 1000
	if spaces.kind != kindInt || spaces.num < 0 || spaces.num > widest {
		return value{}, fmt.Errorf("the spaces are a whole number from 0 to %d", widest)
	}
	if len(s)+strings.Count(s, "\n")*int(spaces.num) > MaxText {
		return value{}, errTextTooLong
	}
	return std(stdlib.IndentFunc, "")(f, []value{spaces, textValue(s)})
}

// formatFunc is cty's format, but for formats that make text without end: width
// and precision can be any number, and an argument can be named many times.
func formatFunc(f *frame, args []value) (value, error) {
	if args[0].kind == kindNull {
		return value{}, nil
	}
	s, err := args[0].needText()
	if err != nil {
		return value{}, err
	}
	largest := 0
	for _, x := range args[1:] {
		largest = max(largest, x.size())
	}
	length := len(s) + strings.Count(s, "%")*largest
	for i, digits := 0, 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			digits = 0
			continue
		}
		if digits = digits*10 + int(s[i]-'0'); digits > MaxText {
			return value{}, errTextTooLong
		}
		length += digits
	}
	if length > MaxText {
		return value{}, errTextTooLong
	}
	return std(stdlib.FormatFunc, "")(f, args)
}
