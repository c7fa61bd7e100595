package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The bounds of a JSON text that is read. They are far beyond what providers
// send, and keep what one body can cost finite.
const (
	// MaxJSONDepth is how deep lists and objects may be nested.
	MaxJSONDepth = 1000
	// MaxJSONValues is how many values, names included, a text may have.
	MaxJSONValues = 1 << 20
)

// ErrNotJSON says that a text is not one JSON value in UTF-8 (RFC 8259).
var ErrNotJSON = errors.New("not JSON")

// ErrJSONTooLarge says that a text is beyond MaxJSONDepth or MaxJSONValues.
var ErrJSONTooLarge = errors.New("JSON too large")

// JSON is a JSON text that was checked once, from its first byte to its last.
// Where its values are is kept, the values themselves are read when asked for.
//
// A name given twice in an object counts as its last. Names and text come in
// Unicode's normal form C. Methods are for one goroutine at a time.
type JSON struct {
	text  []byte
	nodes []jsonNode
	// wide finds the members of objects that are too large to walk each time.
	wide map[uint32]map[string]uint32
	// long finds the elements of lists that are.
	long map[uint32][]uint32
	// recent holds members that were looked up: pipelines ask for the same ones.
	recent [8]lookup
}

type lookup struct {
	object uint32 // plus 1; 0: there is nothing here
	found  uint32 // 0: the object has no such member
	name   string
}

// jsonNode is one value, or one name of an object. The values in a container
// follow it; in an object, each value follows its name.
type jsonNode struct {
	start, end uint32 // in the text; of a text or a name without its quotes
	next       uint32 // the node after this one and all that is in it
	kind       JSONKind
	plain      bool // a text or a name of nothing but ASCII, without escapes
}

// JSONKind is the kind of a JSON value.
type JSONKind uint8

// The kinds.
const (
	JSONNull JSONKind = iota
	JSONBool
	JSONNumber
	JSONText
	JSONList
	JSONObject
)

// walked is how many members or elements are walked before an index is made.
const walked = 48

// ParseJSON reads text, which must not change as long as the result is used. The
// error is ErrNotJSON or ErrJSONTooLarge.
func ParseJSON(text []byte) (*JSON, error) {
	doc := &JSON{}
	if err := doc.parse(text); err != nil {
		return nil, err
	}
	return doc, nil
}

// Root returns the value that the text is.
func (d *JSON) Root() JSONValue { return JSONValue{doc: d} }

// JSONValue is a value in a JSON text. The zero value is a null.
type JSONValue struct {
	doc *JSON
	at  uint32
}

func (v JSONValue) node() *jsonNode { return &v.doc.nodes[v.at] }

// Kind returns what kind of value it is.
func (v JSONValue) Kind() JSONKind {
	if v.doc == nil {
		return JSONNull
	}
	return v.node().kind
}

// Raw returns the value as it is written. It must not be changed.
func (v JSONValue) Raw() []byte {
	if v.doc == nil {
		return []byte("null")
	}
	n := v.node()
	if n.kind == JSONText {
		return v.doc.text[n.start-1 : n.end+1]
	}
	return v.doc.text[n.start:n.end]
}

// Bool returns the value of a JSONBool, false for all else.
func (v JSONValue) Bool() bool {
	return v.Kind() == JSONBool && v.doc.text[v.node().start] == 't'
}

// Text returns the value of a JSONText, "" for all else. Half a surrogate pair
// becomes U+FFFD.
func (v JSONValue) Text() string {
	if v.Kind() != JSONText {
		return ""
	}
	return v.doc.textOf(v.node())
}

// TextIs tells whether the value is the text s, which is in normal form C.
func (v JSONValue) TextIs(s string) bool {
	return v.Kind() == JSONText && v.doc.textIs(v.node(), s)
}

// Member returns the member of a JSONObject by its name, which is in normal form
// C. All other values have no members.
func (v JSONValue) Member(name string) (JSONValue, bool) {
	if v.Kind() != JSONObject {
		return JSONValue{}, false
	}
	d := v.doc
	slot := &d.recent[0]
	if name != "" {
		slot = &d.recent[(len(name)+int(name[0]))%len(d.recent)]
	}
	if slot.object != v.at+1 || slot.name != name {
		*slot = lookup{v.at + 1, v.member(name), name}
	}
	if slot.found == 0 {
		return JSONValue{}, false
	}
	return JSONValue{d, slot.found}, true
}

// member returns the node of a member, 0 where there is none.
func (v JSONValue) member(name string) uint32 {
	d := v.doc
	if d.wide != nil {
		if index, ok := d.wide[v.at]; ok {
			return index[name]
		}
	}
	var found uint32
	count := 0
	nodes := d.nodes
	for at, end := v.at+1, nodes[v.at].next; at < end; at = nodes[at+1].next {
		n := &nodes[at]
		if (!n.plain || int(n.end-n.start) == len(name)) && d.textIs(n, name) {
			found = at + 1
		}
		count++
	}
	if count >= walked {
		d.indexMembers(v.at, count)
	}
	return found
}

func (d *JSON) indexMembers(object uint32, count int) {
	index := make(map[string]uint32, count)
	for at, end := object+1, d.nodes[object].next; at < end; at = d.nodes[at+1].next {
		index[d.textOf(&d.nodes[at])] = at + 1
	}
	if d.wide == nil {
		d.wide = make(map[uint32]map[string]uint32)
	}
	d.wide[object] = index
}

// Element returns an element of a JSONList, counted from 0. All other values have
// no elements.
func (v JSONValue) Element(i int64) (JSONValue, bool) {
	if v.Kind() != JSONList || i < 0 {
		return JSONValue{}, false
	}
	d := v.doc
	if i >= walked {
		elems, ok := d.long[v.at]
		if !ok {
			elems = d.indexElements(v.at)
		}
		if i >= int64(len(elems)) {
			return JSONValue{}, false
		}
		return JSONValue{d, elems[i]}, true
	}
	for at, end := v.at+1, v.node().next; at < end; at = d.nodes[at].next {
		if i == 0 {
			return JSONValue{d, at}, true
		}
		i--
	}
	return JSONValue{}, false
}

func (d *JSON) indexElements(list uint32) []uint32 {
	var elems []uint32
	for at, end := list+1, d.nodes[list].next; at < end; at = d.nodes[at].next {
		elems = append(elems, at)
	}
	if d.long == nil {
		d.long = make(map[uint32][]uint32)
	}
	d.long[list] = elems
	return elems
}

// Elements returns the elements of a JSONList.
func (v JSONValue) Elements() iter.Seq[JSONValue] {
	return func(yield func(JSONValue) bool) {
		if v.Kind() != JSONList {
			return
		}
		d := v.doc
		for at, end := v.at+1, v.node().next; at < end; at = d.nodes[at].next {
			if !yield(JSONValue{d, at}) {
				return
			}
		}
	}
}

// Members returns the members of a JSONObject in the order of the text, a name
// given twice as often as it is given.
func (v JSONValue) Members() iter.Seq2[string, JSONValue] {
	return func(yield func(string, JSONValue) bool) {
		if v.Kind() != JSONObject {
			return
		}
		d := v.doc
		for at, end := v.at+1, v.node().next; at < end; at = d.nodes[at+1].next {
			if !yield(d.textOf(&d.nodes[at]), JSONValue{d, at + 1}) {
				return
			}
		}
	}
}

// Size returns how many values and names are in the value, itself included.
func (v JSONValue) Size() int {
	if v.doc == nil {
		return 1
	}
	return int(v.node().next - v.at)
}

func (d *JSON) textIs(n *jsonNode, s string) bool {
	if n.plain {
		return string(d.text[n.start:n.end]) == s
	}
	return d.textOf(n) == s
}

func (d *JSON) textOf(n *jsonNode) string {
	if n.plain {
		return string(d.text[n.start:n.end])
	}
	var s string
	// It was checked to be a JSON string, so this cannot fail.
	_ = json.Unmarshal(d.text[n.start-1:n.end+1], &s)
	return norm.NFC.String(s)
}

// parse checks the text and notes where its values are. It does not recurse: an
// open container holds the node of the container around it in next.
func (d *JSON) parse(text []byte) error {
	if len(text) > 1<<31 {
		return fmt.Errorf("%w: more than 2 GiB", ErrJSONTooLarge)
	}
	if !utf8.Valid(text) {
		return ErrNotJSON
	}
	d.text = text
	d.nodes = make([]jsonNode, 0, min(len(text)/10+8, MaxJSONValues))

	const none = ^uint32(0)
	open, depth := none, 0
	i := skipSpace(text, 0)
	for {
		// A value begins at i.
		if i >= len(text) {
			return ErrNotJSON
		}
		if len(d.nodes) >= MaxJSONValues-1 {
			return fmt.Errorf("%w: more than %d values", ErrJSONTooLarge, MaxJSONValues)
		}
		closed := true // the value, once the switch is through
		switch c := text[i]; c {
		case '{', '[':
			if depth++; depth > MaxJSONDepth {
				return fmt.Errorf("%w: nested more than %d deep", ErrJSONTooLarge, MaxJSONDepth)
			}
			kind, end := JSONList, byte(']')
			if c == '{' {
				kind, end = JSONObject, '}'
			}
			d.nodes = append(d.nodes, jsonNode{start: uint32(i), next: open, kind: kind})
			open = uint32(len(d.nodes) - 1)
			i = skipSpace(text, i+1)
			if i < len(text) && text[i] == end {
				break // what follows a value closes it
			}
			closed = false
			if kind == JSONObject {
				if i = d.name(i); i < 0 {
					return ErrNotJSON
				}
			}
		case '"':
			end := d.quoted(i)
			if end < 0 {
				return ErrNotJSON
			}
			i = end
		default:
			kind, end := scalar(text, i)
			if end < 0 {
				return ErrNotJSON
			}
			d.nodes = append(d.nodes, jsonNode{
				start: uint32(i), end: uint32(end), next: uint32(len(d.nodes) + 1), kind: kind,
			})
			i = end
		}
		if !closed {
			continue
		}
		// A value ended before i, or an empty container ends at i.
		for {
			i = skipSpace(text, i)
			if open == none {
				if i != len(text) {
					return ErrNotJSON
				}
				return nil
			}
			if i >= len(text) {
				return ErrNotJSON
			}
			n := &d.nodes[open]
			if c := text[i]; c == ',' && int(open) != len(d.nodes)-1 {
				i = skipSpace(text, i+1)
				if n.kind == JSONObject {
					if i = d.name(i); i < 0 {
						return ErrNotJSON
					}
				}
				break
			} else if (c != '}' || n.kind != JSONObject) && (c != ']' || n.kind != JSONList) {
				return ErrNotJSON
			}
			i++
			depth--
			open = n.next
			n.end, n.next = uint32(i), uint32(len(d.nodes))
		}
	}
}

// name reads a name, its colon and the space around that. -1: there is none.
func (d *JSON) name(i int) int {
	if i >= len(d.text) || d.text[i] != '"' {
		return -1
	}
	if i = d.quoted(i); i < 0 {
		return -1
	}
	i = skipSpace(d.text, i)
	if i >= len(d.text) || d.text[i] != ':' {
		return -1
	}
	return skipSpace(d.text, i+1)
}

// quoted reads the string that begins at i and returns where it ends, -1 where
// it is not one.
func (d *JSON) quoted(i int) int {
	text := d.text
	i++
	start, plain := i, true
	for i < len(text) {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		switch {
		case c == '"':
			d.nodes = append(d.nodes, jsonNode{
				start: uint32(start), end: uint32(i), next: uint32(len(d.nodes) + 1), kind: JSONText, plain: plain,
			})
			return i + 1
		case c == '\\':
			n := escapeLen(text[i:])
			if n == 0 {
				return -1
			}
			plain = false
			i += n
		case c < 0x20:
			return -1
		default:
			plain = false
			i++
		}
	}
	return -1
}

// escapeLen returns the length of the escape that text begins with, 0 where it
// is not one.
func escapeLen(text []byte) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(text) < 6 {
			return 0
		}
		for _, c := range text[2:6] {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return 0
			}
		}
		return 6
	}
	return 0
}

// scalar reads a literal or a number at i. The end is -1 where there is none.
func scalar(text []byte, i int) (JSONKind, int) {
	switch text[i] {
	case 't':
		return JSONBool, literal(text, i, "true")
	case 'f':
		return JSONBool, literal(text, i, "false")
	case 'n':
		return JSONNull, literal(text, i, "null")
	}
	if text[i] == '-' {
		i++
	}
	whole := digits(text, i)
	if whole == i || (whole > i+1 && text[i] == '0') {
		return 0, -1
	}
	i = whole
	if i < len(text) && text[i] == '.' {
		end := digits(text, i+1)
		if end == i+1 {
			return 0, -1
		}
		i = end
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		end := digits(text, i)
		if end == i {
			return 0, -1
		}
		i = end
	}
	return JSONNumber, i
}

func literal(text []byte, i int, want string) int {
	if end := i + len(want); end <= len(text) && string(text[i:end]) == want {
		return end
	}
	return -1
}

func digits(text []byte, i int) int {
	for i < len(text) && text[i] >= '0' && text[i] <= '9' {
		i++
	}
	return i
}

func skipSpace(text []byte, i int) int {
	if i < len(text) && text[i] > ' ' {
		return i
	}
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}
