package expr

import (
	"errors"
	"regexp"
)

func patternFunctions() []builtin {
	return []builtin{
		{
			name: "matches", usage: "matches(pattern, text)", min: 2, max: 2, kinds: canBool,
			doc: "Whether the regular expression (RE2) matches a part of the text.",
			match: func(_ *frame, re *regexp.Regexp, args []value) (value, error) {
				s, err := args[1].needText()
				return boolean(err == nil && re.MatchString(s)), err
			},
		},
		{
			name: "regex", usage: "regex(pattern, text)", min: 2, max: 2, kinds: canText | canList | canObject,
			doc:   "What the regular expression (RE2) matches first: the text, or with groups the list of them, or with named groups the object of them. No match is an error, see try and can.",
			match: regexFunc,
		},
		{
			name: "regexall", usage: "regexall(pattern, text)", min: 2, max: 2, kinds: canList,
			doc:   "The list of all that the regular expression (RE2) matches, each as regex yields it.",
			match: regexAllFunc,
		},
		{
			name: "regexreplace", usage: "regexreplace(text, pattern, new)", min: 3, max: 3, kinds: canText, pattern: 1,
			doc:   "The text with each match of the regular expression (RE2) replaced; ${1} or ${name} in new stands for a group.",
			match: regexReplaceFunc,
		},
	}
}

// captured is what one match yields.
func captured(re *regexp.Regexp, s string, at []int) (value, error) {
	group := func(i int) value {
		if at[2*i] < 0 {
			return value{}
		}
		return textValue(clean(s[at[2*i]:at[2*i+1]]))
	}
	names := re.SubexpNames()[1:]
	if len(names) == 0 {
		return group(0), nil
	}
	vals := make([]value, len(names))
	named := 0
	for i, name := range names {
		vals[i] = group(i + 1)
		if name != "" {
			named++
		}
	}
	switch named {
	case 0:
		return listValue(vals), nil
	case len(names):
		return objectValue(append([]string(nil), names...), vals), nil
	}
	return value{}, errors.New("either all groups of a pattern have names or none")
}

func regexFunc(_ *frame, re *regexp.Regexp, args []value) (value, error) {
	s, err := args[1].needText()
	if err != nil {
		return value{}, err
	}
	at := re.FindStringSubmatchIndex(s)
	if at == nil {
		return value{}, errors.New("the pattern does not match")
	}
	return captured(re, s, at)
}

func regexAllFunc(f *frame, re *regexp.Regexp, args []value) (value, error) {
	s, err := args[1].needText()
	if err != nil {
		return value{}, err
	}
	elems := []value{}
	for _, at := range re.FindAllStringSubmatchIndex(s, MaxWork/valueCost) {
		if err := f.spend(len(at) * valueCost); err != nil {
			return value{}, err
		}
		x, err := captured(re, s, at)
		if err != nil {
			return value{}, err
		}
		elems = append(elems, x)
	}
	return listValue(elems), nil
}

func regexReplaceFunc(f *frame, re *regexp.Regexp, args []value) (value, error) {
	s, err := args[0].needText()
	if err != nil {
		return value{}, err
	}
	with, err := args[2].needText()
	if err != nil {
		return value{}, err
	}
	var out []byte
	last := 0
	for _, at := range re.FindAllStringSubmatchIndex(s, -1) {
		out = append(out, s[last:at[0]]...)
		before := len(out)
		out = re.ExpandString(out, with, s, at)
		last = at[1]
		if err := f.produce(len(out) - before + valueCost); err != nil {
			return value{}, err
		}
		if len(out) > MaxText {
			return value{}, errTextTooLong
		}
	}
	return textValue(clean(string(append(out, s[last:]...)))), nil
}
