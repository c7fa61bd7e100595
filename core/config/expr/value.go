package expr

import (
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/callbackd/callbackd/core/event"
)

// kind is the kind of a value.
type kind uint8

const (
	kindNull   kind = iota
	kindBool        // num is 0 or 1
	kindInt         // num: a whole number within 64 bits
	kindBig         // ref is a *big.Float: any other number
	kindText        // str
	kindList        // ref is a *list
	kindObject      // ref is an *object
	kindJSON        // ref is an event.JSONValue: a list or object of a body, not opened yet
	kindAbsent      // what lookup did not find; never seen elsewhere
)

// value is what an expression evaluates to. The zero value is null. Values are
// never changed once they were made.
type value struct {
	kind kind
	num  int64
	str  string
	ref  any
}

type list struct{ elems []value }

// object has its members sorted by name, each name once.
type object struct {
	names []string
	vals  []value
}

func (o *object) get(name string) (value, bool) {
	if i, ok := slices.BinarySearch(o.names, name); ok {
		return o.vals[i], true
	}
	return value{}, false
}

func boolean(b bool) value {
	if b {
		return value{kind: kindBool, num: 1}
	}
	return value{kind: kindBool}
}

func integer(i int64) value { return value{kind: kindInt, num: i} }

// textValue is for text that is in normal form C.
func textValue(s string) value { return value{kind: kindText, str: s} }

func listValue(elems []value) value { return value{kind: kindList, ref: &list{elems}} }

// objectValue makes an object of members in any order; of a name given twice the
// last one counts.
func objectValue(names []string, vals []value) value {
	sorted := true
	for i := 1; i < len(names) && sorted; i++ {
		sorted = names[i-1] < names[i]
	}
	if sorted {
		return value{kind: kindObject, ref: &object{names, vals}}
	}
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
	o := &object{make([]string, 0, len(names)), make([]value, 0, len(names))}
	for _, i := range order {
		if last := len(o.names) - 1; last >= 0 && o.names[last] == names[i] {
			o.vals[last] = vals[i]
			continue
		}
		o.names = append(o.names, names[i])
		o.vals = append(o.vals, vals[i])
	}
	return value{kind: kindObject, ref: o}
}

// clean makes text of the outside what text is here: UTF-8 in normal form C.
func clean(s string) string {
	if isASCII(s) {
		return s
	}
	return norm.NFC.String(strings.ToValidUTF8(s, "\uFFFD"))
}

func isASCII(s string) bool {
	for len(s) >= 8 {
		eight := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56 // one load
		if eight&0x8080808080808080 != 0 {
			return false
		}
		s = s[8:]
	}
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// fromJSON reads a value of a body. Lists and objects stay unopened.
func fromJSON(f *frame, v event.JSONValue) (value, error) {
	kind := v.Kind()
	if kind == event.JSONText || kind == event.JSONNumber {
		if err := f.spend(len(v.Raw())); err != nil {
			return value{}, err
		}
	}
	switch kind {
	case event.JSONBool:
		return boolean(v.Bool()), nil
	case event.JSONNumber:
		if i, ok := smallInt(v.Raw()); ok {
			return integer(i), nil
		}
		return parseNumber(string(v.Raw()))
	case event.JSONText:
		return textValue(v.Text()), nil
	case event.JSONList, event.JSONObject:
		return value{kind: kindJSON, ref: v}, nil
	default:
		return value{}, nil
	}
}

// open makes a kindList or kindObject of a kindJSON, one level of it.
func (x value) open(f *frame) (value, error) {
	if x.kind != kindJSON {
		return x, nil
	}
	v := x.ref.(event.JSONValue)
	if v.Kind() == event.JSONList {
		var elems []value
		for e := range v.Elements() {
			if err := f.spend(valueCost); err != nil {
				return value{}, err
			}
			elem, err := fromJSON(f, e)
			if err != nil {
				return value{}, err
			}
			elems = append(elems, elem)
		}
		return listValue(elems), nil
	}
	var names []string
	var vals []value
	for name, m := range v.Members() {
		if err := f.spend(valueCost + len(name)); err != nil {
			return value{}, err
		}
		val, err := fromJSON(f, m)
		if err != nil {
			return value{}, err
		}
		names, vals = append(names, name), append(vals, val)
	}
	return objectValue(names, vals), nil
}

// typeName names the type for people.
func (x value) typeName() string {
	switch x.kind {
	case kindNull:
		return "null"
	case kindBool:
		return "a bool"
	case kindInt, kindBig:
		return "a number"
	case kindText:
		return "text"
	case kindList:
		return "a list"
	case kindJSON:
		if x.ref.(event.JSONValue).Kind() == event.JSONList {
			return "a list"
		}
	}
	return "an object"
}

// text converts to text as HCL does; ok is false for null, lists and objects.
func (x value) text() (s string, ok bool) {
	switch x.kind {
	case kindText:
		return x.str, true
	case kindInt:
		return strconv.FormatInt(x.num, 10), true
	case kindBig:
		return x.ref.(*big.Float).Text('f', -1), true
	case kindBool:
		return strconv.FormatBool(x.num != 0), true
	}
	return "", false
}

// truth converts to a bool as HCL does, null being false.
func (x value) truth() (bool, error) {
	switch x.kind {
	case kindNull:
		return false, nil
	case kindBool:
		return x.num != 0, nil
	case kindText:
		switch x.str {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
		return false, errNotBoolText
	}
	return false, typeError{want: "a bool", got: x}
}

// size estimates what a value costs: see MaxWork.
func (x value) size() int {
	n := valueCost + len(x.str)
	switch x.kind {
	case kindBig:
		n += 8 * valueCost
	case kindJSON:
		v := x.ref.(event.JSONValue)
		n += v.Size()*valueCost + len(v.Raw())
	case kindList:
		for _, e := range x.ref.(*list).elems {
			n += e.size()
		}
	case kindObject:
		o := x.ref.(*object)
		for i := range o.vals {
			n += len(o.names[i]) + o.vals[i].size()
		}
	}
	return n
}

// hasNull tells whether x is null or has a null in it.
func (x value) hasNull() bool {
	switch x.kind {
	case kindNull:
		return true
	case kindJSON:
		opened, err := x.open(nil) // a name given twice counts once
		return err == nil && opened.hasNull()
	case kindList:
		return slices.ContainsFunc(x.ref.(*list).elems, value.hasNull)
	case kindObject:
		return slices.ContainsFunc(x.ref.(*object).vals, value.hasNull)
	}
	return false
}

// equal compares like HCL's ==: values of different types differ.
func equal(f *frame, a, b value) (bool, error) {
	a, err := a.open(f)
	if err != nil {
		return false, err
	}
	if b, err = b.open(f); err != nil || a.kind != b.kind {
		return false, err
	}
	switch a.kind {
	case kindNull:
		return true, nil
	case kindBool, kindInt:
		return a.num == b.num, nil
	case kindBig:
		return bigEqual(a.ref.(*big.Float), b.ref.(*big.Float)), nil
	case kindText:
		if len(a.str) != len(b.str) {
			return false, nil
		}
		return a.str == b.str, f.spend(len(a.str))
	case kindList:
		return equalAll(f, a.ref.(*list).elems, b.ref.(*list).elems)
	default:
		x, y := a.ref.(*object), b.ref.(*object)
		if !slices.Equal(x.names, y.names) {
			return false, nil
		}
		return equalAll(f, x.vals, y.vals)
	}
}

func equalAll(f *frame, a, b []value) (bool, error) {
	if len(a) != len(b) {
		return false, nil
	}
	for i := range a {
		if err := f.spend(valueCost); err != nil {
			return false, err
		}
		if same, err := equal(f, a[i], b[i]); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}
