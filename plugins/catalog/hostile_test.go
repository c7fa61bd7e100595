package catalog

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

type hostDescription = host.Description

func text() *sinkpb.Type { return &sinkpb.Type{Kind: sinkpb.Kind_KIND_STRING} }

func textValue(s string) *sinkpb.Value { return &sinkpb.Value{Kind: &sinkpb.Value_Text{Text: s}} }

// attribute is a schema with one attribute that is changed.
func attribute(change func(a *sinkpb.Attribute)) *sinkpb.Schema {
	a := &sinkpb.Attribute{Name: "a", Type: text()}
	change(a)
	return &sinkpb.Schema{Attributes: []*sinkpb.Attribute{a}}
}

func block(change func(b *sinkpb.Block)) *sinkpb.Schema {
	b := &sinkpb.Block{Name: "b"}
	change(b)
	return &sinkpb.Schema{Blocks: []*sinkpb.Block{b}}
}

// hostile are schemas as nobody should declare them, by what is said about them;
// those that are accepted all the same begin with "ok".
func hostile() map[string]*sinkpb.Schema {
	deep := &sinkpb.Schema{}
	for range 200 {
		inner := deep
		deep = block(func(b *sinkpb.Block) { b.Schema = inner })
	}
	deepType := text()
	for range 200 {
		deepType = &sinkpb.Type{Kind: sinkpb.Kind_KIND_LIST, Element: deepType}
	}
	deepValue := textValue("x")
	for range 200 {
		deepValue = &sinkpb.Value{Kind: &sinkpb.Value_List{List: &sinkpb.List{Items: []*sinkpb.Value{deepValue}}}}
	}
	many, wide, long := &sinkpb.Schema{}, &sinkpb.Schema{}, &sinkpb.Schema{}
	for i := range 1001 {
		many.Attributes = append(many.Attributes, &sinkpb.Attribute{Name: fmt.Sprintf("a%d", i), Type: text()})
	}
	for i := range 999 {
		wide.Attributes = append(wide.Attributes, &sinkpb.Attribute{Name: fmt.Sprintf("a%d", i), Type: text(), Required: true, Doc: strings.Repeat("*|`", 50)})
	}
	for i := range 100 {
		long.Attributes = append(long.Attributes, &sinkpb.Attribute{Name: fmt.Sprintf("a%d", i), Type: text(), Doc: strings.Repeat("x", 16<<10)})
	}
	elements := make([]*sinkpb.Value, 1001)
	for i := range elements {
		elements[i] = textValue("x")
	}
	values := make([]string, 1001)
	for i := range values {
		values[i] = fmt.Sprint(i)
	}
	level := func(n uint32) *sinkpb.Schema { // needs n blocks of n blocks of n blocks ...
		s := attribute(func(a *sinkpb.Attribute) { a.Required = true })
		for range 8 {
			inner := s
			s = block(func(b *sinkpb.Block) { b.Repeated, b.MinItems, b.Schema = true, n, inner })
		}
		return s
	}
	names := &sinkpb.Schema{}
	for _, name := range []string{"count", "for_each", "dynamic", "content", "labels", "for", "in", "if", "null", "true", "config", "event", "env", "_", "__proto__"} {
		names.Attributes = append(names.Attributes, &sinkpb.Attribute{Name: name, Type: text(), Required: true})
	}
	return map[string]*sinkpb.Schema{
		"ok nothing":   nil,
		"ok wide":      wide,
		"ok names":     names,
		"ok 1000^8":    level(1000),
		"ok max items": block(func(b *sinkpb.Block) { b.Repeated, b.MaxItems = true, math.MaxInt32 }),
		"ok same name": block(func(b *sinkpb.Block) {
			b.Schema = block(func(b *sinkpb.Block) { b.Schema = block(func(*sinkpb.Block) {}) })
		}),
		"ok controls":  attribute(func(a *sinkpb.Attribute) { a.Doc = "\x1b[2J\u202e\u0085\r" }),
		"ok empty one": attribute(func(a *sinkpb.Attribute) { a.OneOf = []string{""}; a.Required = true }),
		"ok templates": attribute(func(a *sinkpb.Attribute) { a.Default = textValue("${event.body}%{ if true }\"\\\x00") }),
		"ok escapes": attribute(func(a *sinkpb.Attribute) {
			a.PerEvent = true
			a.Escape = []*sinkpb.Replacement{{From: "a", To: strings.Repeat("a", 1000)}}
		}),
		"ok negative": attribute(func(a *sinkpb.Attribute) {
			a.Type.Kind = sinkpb.Kind_KIND_DURATION
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_Duration{Duration: durationpb.New(-1)}}
		}),
		"ok deep JSON": attribute(func(a *sinkpb.Attribute) {
			a.Type.Kind = sinkpb.Kind_KIND_ANY
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_Json{Json: []byte(strings.Repeat("[", 5000) + strings.Repeat("]", 5000))}}
		}),
		"ok null": attribute(func(a *sinkpb.Attribute) { a.Default = &sinkpb.Value{} }),
		"ok big number": attribute(func(a *sinkpb.Attribute) {
			a.Type.Kind = sinkpb.Kind_KIND_NUMBER
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_Number{Number: math.MaxFloat64}}
		}),

		"nested deeper than 8 levels":               deep,
		`attribute "a": nested deeper`:              attribute(func(a *sinkpb.Attribute) { a.Type = deepType }),
		"the value is nested deeper than 32 levels": attribute(func(a *sinkpb.Attribute) { a.Default = deepValue }),
		"more than 1000 attributes and blocks":      many,
		"more than 1048576 bytes of text":           long,
		`block "b\x00": a name starts`:              block(func(b *sinkpb.Block) { b.Name = "b\x00" }),
		`attribute "é": a name starts`:              attribute(func(a *sinkpb.Attribute) { a.Name = "é" }),
		`attribute "": a name starts`:               attribute(func(a *sinkpb.Attribute) { a.Name = "" }),
		"a name starts with a letter":               attribute(func(a *sinkpb.Attribute) { a.Name = strings.Repeat("a", 64<<10) }),
		`block "a": the name is used twice`:         {Attributes: []*sinkpb.Attribute{{Name: "a", Type: text()}}, Blocks: []*sinkpb.Block{{Name: "a"}}},
		"kind of value that is not known":           attribute(func(a *sinkpb.Attribute) { a.Type.Kind = 77 }),
		"(-1)":                                      attribute(func(a *sinkpb.Attribute) { a.Type.Kind = -1 }),
		"only text can be one of":                   attribute(func(a *sinkpb.Attribute) { a.Type.Kind = sinkpb.Kind_KIND_NUMBER; a.OneOf = []string{"1"} }),
		"listed twice":                              attribute(func(a *sinkpb.Attribute) { a.OneOf = []string{"x", "x"} }),
		"more than 1000 allowed values":             attribute(func(a *sinkpb.Attribute) { a.OneOf = values }),
		"more than 256 replacements": attribute(func(a *sinkpb.Attribute) {
			a.PerEvent = true
			for i := range 257 {
				a.Escape = append(a.Escape, &sinkpb.Replacement{From: fmt.Sprint(i)})
			}
		}),
		"is not among the allowed values":   attribute(func(a *sinkpb.Attribute) { a.OneOf = []string{"x"}; a.Default = textValue("y") }),
		"it is required, so it cannot have": attribute(func(a *sinkpb.Attribute) { a.Required = true; a.Default = textValue("y") }),
		"a size is not negative": attribute(func(a *sinkpb.Attribute) {
			a.Type.Kind = sinkpb.Kind_KIND_SIZE
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_Integer{Integer: -1}}
		}),
		"a text is longer than 65536 bytes": attribute(func(a *sinkpb.Attribute) { a.Default = textValue(strings.Repeat("x", 65537)) }),
		"more than 1000 elements": attribute(func(a *sinkpb.Attribute) {
			a.Type = &sinkpb.Type{Kind: sinkpb.Kind_KIND_LIST, Element: text()}
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_List{List: &sinkpb.List{Items: elements}}}
		}),
		"the JSON text is not valid": attribute(func(a *sinkpb.Attribute) {
			a.Type.Kind = sinkpb.Kind_KIND_ANY
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_Json{Json: []byte("{")}}
		}),
		"the number is not finite": attribute(func(a *sinkpb.Attribute) {
			a.Type.Kind = sinkpb.Kind_KIND_NUMBER
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_Number{Number: math.NaN()}}
		}),
		"not a per-event value": attribute(func(a *sinkpb.Attribute) {
			a.PerEvent = true
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_PerEvent{PerEvent: &sinkpb.PerEvent{Key: "a"}}}
		}),
		"the number of blocks is out of":  block(func(b *sinkpb.Block) { b.Repeated, b.MinItems = true, math.MaxUint32 }),
		"more than 1000 blocks":           block(func(b *sinkpb.Block) { b.Repeated, b.MinItems = true, 1001 }),
		"at least 3 and at most 2 blocks": block(func(b *sinkpb.Block) { b.Repeated, b.MinItems, b.MaxItems = true, 3, 2 }),
		"that is not repeated":            block(func(b *sinkpb.Block) { b.MaxItems = 2 }),
	}
}

func TestHostileSchemas(t *testing.T) {
	for want, s := range hostile() {
		body, err := proto.Marshal(&sinkpb.DescribeResponse{Name: "x", Schema: s})
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		_, err = decodeBody(body)
		if strings.HasPrefix(want, "ok") {
			if err != nil {
				t.Errorf("%s: %v", want, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 1000 {
			t.Errorf("%s: %v", want, err)
		}
		if _, onLine := wire.SchemaFromProto(s); (err == nil) != (onLine == nil) {
			t.Errorf("%s: from the catalog %v, from the plugin %v", want, err, onLine)
		}
	}
	for name, answer := range map[string]*sinkpb.DescribeResponse{
		"no name": {}, "name": {Name: "a b"}, "version": {Name: "a", Version: strings.Repeat("x", 101)}, "doc": {Name: "a", Doc: strings.Repeat("x", 5000)},
		"capability": {Name: "a", Capabilities: &sinkpb.Capabilities{MaxInFlight: math.MaxUint32}},
		"linger":     {Name: "a", Capabilities: &sinkpb.Capabilities{Linger: durationpb.New(-1)}},
	} {
		body, err := proto.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := decodeBody(body); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
