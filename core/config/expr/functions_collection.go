package expr

import (
	"errors"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty/function/stdlib"
)

func collectionFunctions() []builtin {
	return []builtin{
		{
			name: "length", usage: "length(value)", min: 1, max: 1, kinds: canNumber, run: lengthFunc,
			doc: "How many elements a list, members an object or characters a text has.",
		},
		{
			name: "contains", usage: "contains(list, value)", min: 2, max: 2, kinds: canBool, run: containsFunc,
			doc: "Whether the value is an element of the list. See strcontains for text.",
		},
		{
			name: "keys", usage: "keys(object)", min: 1, max: 1, kinds: canList, doc: "The sorted list of the object's names.",
			run: func(f *frame, args []value) (value, error) {
				o, err := args[0].needObject(f)
				if err != nil {
					return value{}, err
				}
				elems := make([]value, len(o.names))
				for i, name := range o.names {
					elems[i] = textValue(name)
				}
				return listValue(elems), nil
			},
		},
		{
			name: "values", usage: "values(object)", min: 1, max: 1, kinds: canList, doc: "The list of the object's values, in the order of their names.",
			run: func(f *frame, args []value) (value, error) {
				o, err := args[0].needObject(f)
				if err != nil {
					return value{}, err
				}
				return listValue(o.vals), nil
			},
		},
		{
			name: "lookup", usage: "lookup(object, name, default)", min: 2, max: 3, takesNull: true, kinds: canAnything, run: lookupFunc,
			doc: "The object's member of that name, else the default, else null.",
		},
		{
			name: "coalesce", usage: "coalesce(value, …)", min: 1, max: -1, takesNull: true, kinds: canAnything,
			doc: "The first value that is not null.",
			run: func(_ *frame, args []value) (value, error) {
				for _, x := range args {
					if x.kind != kindNull {
						return x, nil
					}
				}
				return value{}, nil
			},
		},
		{
			name: "merge", usage: "merge(object, …)", min: 1, max: -1, takesNull: true, kinds: canObject, run: mergeFunc,
			doc: "One object with the members of all; the last one of a name counts. Null adds nothing.",
		},
		{name: "concat", usage: "concat(list, …)", min: 1, max: -1, kinds: canList, run: concatFunc, doc: "One list with the elements of all."},
		{
			name: "flatten", usage: "flatten(list)", min: 1, max: 1, kinds: canList, run: flattenFunc,
			doc: "The list, with the elements of the lists in it in their place.",
		},
		{name: "distinct", usage: "distinct(list)", min: 1, max: 1, kinds: canList, run: distinctFunc, doc: "The list without repeated elements."},
		{
			name: "compact", usage: "compact(list)", min: 1, max: 1, kinds: canList, doc: "The list without null and empty text.",
			run: func(f *frame, args []value) (value, error) {
				elems, err := args[0].needList(f)
				return listValue(slices.DeleteFunc(slices.Clone(elems), func(x value) bool {
					return x.kind == kindNull || x.kind == kindText && x.str == ""
				})), err
			},
		},
		{name: "sort", usage: "sort(list)", min: 1, max: 1, kinds: canList, run: sortFunc, doc: "The list of texts, sorted."},
		{
			name: "reverse", usage: "reverse(list)", min: 1, max: 1, kinds: canList, doc: "The list, last element first.",
			run: func(f *frame, args []value) (value, error) {
				elems, err := args[0].needList(f)
				elems = slices.Clone(elems)
				slices.Reverse(elems)
				return listValue(elems), err
			},
		},
		{
			name: "slice", usage: "slice(list, start, end)", min: 3, max: 3, kinds: canList, run: sliceFunc,
			doc: "The elements from start to before end; what is past the end of the list is left out.",
		},
		{
			name: "element", usage: "element(list, number)", min: 2, max: 2, kinds: canAnything, run: elementFunc,
			doc: "The element of that number, counted from 0, around the end and, if negative, from it.",
		},
	}
}

func (x value) needList(f *frame) ([]value, error) {
	opened, err := x.open(f)
	if err != nil {
		return nil, err
	}
	if l, ok := opened.ref.(*list); ok {
		return l.elems, nil
	}
	return nil, typeError{want: "a list", got: x}
}

func (x value) needObject(f *frame) (*object, error) {
	opened, err := x.open(f)
	if err != nil {
		return nil, err
	}
	if o, ok := opened.ref.(*object); ok {
		return o, nil
	}
	return nil, typeError{want: "an object", got: x}
}

// needCount converts to a whole number that can be a place in a list.
func (x value) needCount() (int, error) {
	n, err := x.toNumber()
	if err != nil {
		return 0, err
	}
	if n.kind != kindInt || int64(int(n.num)) != n.num {
		return 0, errors.New("a whole number is required")
	}
	return int(n.num), nil
}

func lengthFunc(f *frame, args []value) (value, error) {
	x, err := args[0].open(f)
	if err != nil {
		return value{}, err
	}
	switch x.kind {
	case kindList:
		return integer(int64(len(x.ref.(*list).elems))), nil
	case kindObject:
		return integer(int64(len(x.ref.(*object).names))), nil
	case kindText:
		if isASCII(x.str) && !strings.Contains(x.str, "\r\n") {
			return integer(int64(len(x.str))), nil
		}
		return std(stdlib.StrlenFunc, "")(f, args)
	}
	return value{}, typeError{want: "a list, an object or text", got: x}
}

func containsFunc(f *frame, args []value) (value, error) {
	elems, err := args[0].needList(f)
	if err != nil {
		return value{}, err
	}
	for _, x := range elems {
		if same, err := equal(f, x, args[1]); err != nil || same {
			return boolean(same), err
		}
	}
	return boolean(false), nil
}

// lookupFunc is lookup with expanded arguments; else compiler.lookup has it.
func lookupFunc(f *frame, args []value) (value, error) {
	other := value{}
	if len(args) == 3 {
		other = args[2]
	}
	if args[0].kind == kindNull || args[1].kind == kindNull {
		return other, nil
	}
	o, err := args[0].needObject(f)
	if err != nil {
		return value{}, err
	}
	name, err := args[1].needText()
	if err != nil {
		return value{}, err
	}
	if x, ok := o.get(name); ok {
		return x, nil
	}
	return other, nil
}

func mergeFunc(f *frame, args []value) (value, error) {
	var names []string
	var vals []value
	for _, x := range args {
		if x.kind == kindNull {
			continue
		}
		o, err := x.needObject(f)
		if err != nil {
			return value{}, err
		}
		names, vals = append(names, o.names...), append(vals, o.vals...)
	}
	return objectValue(names, vals), nil
}

func concatFunc(f *frame, args []value) (value, error) {
	all := []value{}
	for _, x := range args {
		elems, err := x.needList(f)
		if err != nil {
			return value{}, err
		}
		all = append(all, elems...)
	}
	return listValue(all), nil
}

func flattenFunc(f *frame, args []value) (value, error) {
	flat := []value{}
	var walk func(elems []value) error
	walk = func(elems []value) error {
		for _, x := range elems {
			if x.typeName() != "a list" {
				flat = append(flat, x)
				continue
			}
			inner, err := x.needList(f)
			if err == nil {
				err = walk(inner)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	elems, err := args[0].needList(f)
	if err == nil {
		err = walk(elems)
	}
	return listValue(flat), err
}

// distinctFunc takes elements for equal where their JSON is: == of values that
// are no functions of anything else.
func distinctFunc(f *frame, args []value) (value, error) {
	elems, err := args[0].needList(f)
	if err != nil {
		return value{}, err
	}
	out, seen := []value{}, make(map[string]bool, len(elems))
	for _, x := range elems {
		text, err := appendJSON(f, nil, x)
		if err != nil {
			return value{}, err
		}
		if !seen[string(text)] {
			seen[string(text)] = true
			out = append(out, x)
		}
	}
	return listValue(out), nil
}

func sortFunc(f *frame, args []value) (value, error) {
	elems, err := args[0].needList(f)
	if err != nil {
		return value{}, err
	}
	texts := make([]value, len(elems))
	for i, x := range elems {
		s, err := x.needText()
		if err != nil {
			return value{}, err
		}
		texts[i] = textValue(s)
	}
	slices.SortStableFunc(texts, func(a, b value) int { return strings.Compare(a.str, b.str) })
	return listValue(texts), nil
}

func sliceFunc(f *frame, args []value) (value, error) {
	elems, err := args[0].needList(f)
	if err != nil {
		return value{}, err
	}
	start, err := args[1].needCount()
	if err != nil {
		return value{}, err
	}
	end, err := args[2].needCount()
	if err != nil {
		return value{}, err
	}
	if start < 0 || end < start {
		return value{}, errors.New("start is at least 0, and end is not before it")
	}
	return listValue(elems[min(start, len(elems)):min(end, len(elems))]), nil
}

func elementFunc(f *frame, args []value) (value, error) {
	elems, err := args[0].needList(f)
	if err != nil {
		return value{}, err
	}
	i, err := args[1].needCount()
	if err != nil || len(elems) == 0 {
		return value{}, err // of an empty list, null
	}
	if i %= len(elems); i < 0 {
		i += len(elems)
	}
	return elems[i], nil
}
