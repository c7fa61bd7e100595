package wire_test

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

func list(n int) schema.Value {
	var v schema.Value = "x"
	for range n {
		v = schema.List{v}
	}
	return v
}

func TestValuesThereAndBack(t *testing.T) {
	values := []schema.Value{
		nil, "", "text é", true, false, int64(math.MinInt64), int64(math.MaxInt64), 1.5, 1e300, 9223372036854775808.0,
		time.Duration(math.MaxInt64 - 1), -time.Second, time.Duration(0), schema.JSON(`{"a":1e400}`),
		schema.List{},
		schema.Object{},
		schema.List{nil, "a", schema.List{int64(1)}},
		schema.Object{"a": nil, "": schema.Object{"b": schema.JSON("null")}},
		schema.PerEvent{Key: "route.0.text"},
		list(32),
	}
	for _, want := range values {
		message, err := wire.ValueToProto(want)
		if err != nil {
			t.Errorf("%v: %v", want, err)
			continue
		}
		data, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		var received sinkpb.Value
		if err := proto.Unmarshal(data, &received); err != nil {
			t.Fatal(err)
		}
		if got, err := wire.ValueFromProto(&received); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%#v became %#v, %v", want, got, err)
		}
	}
}

func TestValuesThatAreNone(t *testing.T) {
	for name, v := range map[string]schema.Value{
		"int": 1, "text not UTF-8": "\xff", "key not UTF-8": schema.Object{"\xff": nil}, "infinite": math.Inf(1), "NaN": math.NaN(),
		"JSON": schema.JSON("{"), "no JSON": schema.JSON(nil), "JSON not UTF-8": schema.JSON("\"\xff\""), "no key": schema.PerEvent{},
		"long key": schema.PerEvent{Key: strings.Repeat("x", 5000)}, "deep": list(33), "inside": schema.List{schema.Object{"a": 1}},
	} {
		if message, err := wire.ValueToProto(v); err == nil {
			t.Errorf("%s: became %v", name, message)
		}
	}
	number := func(f float64) *sinkpb.Value { return &sinkpb.Value{Kind: &sinkpb.Value_Number{Number: f}} }
	deep := &sinkpb.Value{}
	for range 40 {
		deep = &sinkpb.Value{Kind: &sinkpb.Value_Object{Object: &sinkpb.Object{Fields: map[string]*sinkpb.Value{"a": deep}}}}
	}
	unknown := &sinkpb.Value{}
	unknown.ProtoReflect().SetUnknown([]byte{0x98, 0x06, 0x01}) // field 99
	for name, v := range map[string]*sinkpb.Value{
		"NaN": number(math.NaN()), "infinite": number(math.Inf(-1)), "deep": deep, "kind of the future": unknown,
		"JSON":          {Kind: &sinkpb.Value_Json{Json: []byte("nope")}},
		"text":          {Kind: &sinkpb.Value_Text{Text: "\xff"}},
		"per event":     {Kind: &sinkpb.Value_PerEvent{}},
		"duration":      {Kind: &sinkpb.Value_Duration{Duration: &durationpb.Duration{Seconds: 1, Nanos: -1}}},
		"long duration": {Kind: &sinkpb.Value_Duration{Duration: &durationpb.Duration{Seconds: 300000000000}}},
		"eons":          {Kind: &sinkpb.Value_Duration{Duration: &durationpb.Duration{Seconds: 10000000000}}},
	} {
		if got, err := wire.ValueFromProto(v); err == nil {
			t.Errorf("%s: became %v", name, got)
		}
	}
	for f, want := range map[float64]schema.Value{3: int64(3), -9223372036854775808: int64(math.MinInt64), 9223372036854775808: 9223372036854775808.0, 0.5: 0.5} {
		if got, err := wire.ValueFromProto(number(f)); err != nil || got != want {
			t.Errorf("%v became %#v, %v", f, got, err)
		}
	}
	if got, err := wire.ObjectFromProto(nil); err != nil || got == nil || len(got) != 0 {
		t.Errorf("no object: %v, %v", got, err)
	}
}

func TestKindsAreNumberedAlike(t *testing.T) {
	pairs := map[schema.Kind]sinkpb.Kind{
		schema.KindString: sinkpb.Kind_KIND_STRING, schema.KindNumber: sinkpb.Kind_KIND_NUMBER, schema.KindBool: sinkpb.Kind_KIND_BOOL,
		schema.KindDuration: sinkpb.Kind_KIND_DURATION, schema.KindSize: sinkpb.Kind_KIND_SIZE, schema.KindPath: sinkpb.Kind_KIND_PATH,
		schema.KindList: sinkpb.Kind_KIND_LIST, schema.KindMap: sinkpb.Kind_KIND_MAP, schema.KindAny: sinkpb.Kind_KIND_ANY,
	}
	element := schema.Type{Kind: schema.KindBool}
	for kind, want := range pairs {
		typ := schema.Type{Kind: kind}
		if kind == schema.KindList || kind == schema.KindMap {
			typ.Element = &element
		}
		s, err := wire.SchemaToProto(schema.Schema{Attributes: []schema.Attribute{{Name: "a", Type: typ}}})
		if err != nil || s.GetAttributes()[0].GetType().GetKind() != want {
			t.Errorf("%v became %v, %v", kind, s, err)
		}
	}
	if len(pairs)+1 != len(sinkpb.Kind_name) {
		t.Errorf("%d kinds here, %d on the wire", len(pairs), len(sinkpb.Kind_name)-1)
	}
}

func TestConform(t *testing.T) {
	text, number := schema.Type{Kind: schema.KindString}, schema.Type{Kind: schema.KindNumber}
	for _, test := range []struct {
		typ  schema.Type
		v    schema.Value
		want string
	}{
		{text, nil, ""},
		{text, "", ""},
		{text, int64(1), "a string is expected, not a number"},
		{text, schema.PerEvent{Key: "a"}, "a string is expected, not a per-event value"},
		{number, 1.5, ""},
		{number, time.Second, "a number is expected, not a duration"},
		{schema.Type{Kind: schema.KindSize}, int64(-1), "a size is not negative"},
		{schema.Type{Kind: schema.KindSize}, 1.5, "a size is expected, not a number"},
		{schema.Type{Kind: schema.KindAny}, schema.JSON("1"), ""},
		{schema.Type{Kind: schema.KindAny}, "1", "a value is expected, not a string"},
		{schema.Type{Kind: schema.KindList, Element: &text}, schema.List{"a", nil}, "element 1: a string is expected, not null"},
		{schema.Type{Kind: schema.KindMap, Element: &number}, schema.Object{"k": "a"}, `"k": a number is expected, not a string`},
		{schema.Type{Kind: schema.KindMap, Element: &number}, schema.List{}, "a map is expected, not a list"},
	} {
		got := ""
		if err := schema.Conform(test.typ, test.v); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%v as %v: %q, want %q", test.v, test.typ, got, test.want)
		}
	}
}

func TestSchemasThatAreNone(t *testing.T) {
	text := &sinkpb.Type{Kind: sinkpb.Kind_KIND_STRING}
	attr := func(change func(a *sinkpb.Attribute)) *sinkpb.Schema {
		a := &sinkpb.Attribute{Name: "a", Type: text}
		change(a)
		return &sinkpb.Schema{Attributes: []*sinkpb.Attribute{a}}
	}
	block := func(change func(b *sinkpb.Block)) *sinkpb.Schema {
		b := &sinkpb.Block{Name: "b"}
		change(b)
		return &sinkpb.Schema{Blocks: []*sinkpb.Block{b}}
	}
	deep := &sinkpb.Schema{}
	for range 10 {
		inner := deep
		deep = block(func(b *sinkpb.Block) { b.Schema = inner })
	}
	deepType := text
	for range 10 {
		deepType = &sinkpb.Type{Kind: sinkpb.Kind_KIND_LIST, Element: deepType}
	}
	many := &sinkpb.Schema{}
	for range 1001 {
		many.Attributes = append(many.Attributes, &sinkpb.Attribute{Name: "a", Type: text})
	}
	for want, s := range map[string]*sinkpb.Schema{
		`attribute "": a name starts with a letter`:     attr(func(a *sinkpb.Attribute) { a.Name = "" }),
		`attribute "a\nb": a name starts with a letter`: attr(func(a *sinkpb.Attribute) { a.Name = "a\nb" }),
		"kind of value that is not known here (0)":      attr(func(a *sinkpb.Attribute) { a.Type = nil }),
		"kind of value that is not known here (77)":     attr(func(a *sinkpb.Attribute) { a.Type = &sinkpb.Type{Kind: 77} }),
		"a list or map without a type of its elements":  attr(func(a *sinkpb.Attribute) { a.Type = &sinkpb.Type{Kind: sinkpb.Kind_KIND_MAP} }),
		"only lists and maps have elements":             attr(func(a *sinkpb.Attribute) { a.Type = &sinkpb.Type{Kind: sinkpb.Kind_KIND_BOOL, Element: text} }),
		`attribute "a": nested deeper than 8 levels`:    attr(func(a *sinkpb.Attribute) { a.Type = deepType }),
		"default: a string is expected, not a number":   attr(func(a *sinkpb.Attribute) { a.Default = &sinkpb.Value{Kind: &sinkpb.Value_Integer{Integer: 1}} }),
		"default: a string is expected, not a per-event value": attr(func(a *sinkpb.Attribute) {
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_PerEvent{PerEvent: &sinkpb.PerEvent{Key: "a"}}}
		}),
		"it is required, so it cannot have a default": attr(func(a *sinkpb.Attribute) { a.Required = true; a.Default = &sinkpb.Value{Kind: &sinkpb.Value_Text{}} }),
		"is not among the allowed values": attr(func(a *sinkpb.Attribute) {
			a.OneOf = []string{"x"}
			a.Default = &sinkpb.Value{Kind: &sinkpb.Value_Text{}}
		}),
		"only what is evaluated per event can be escaped": attr(func(a *sinkpb.Attribute) { a.Escape = []*sinkpb.Replacement{{From: "x"}} }),
		"a replacement of nothing":                        attr(func(a *sinkpb.Attribute) { a.PerEvent = true; a.Escape = []*sinkpb.Replacement{nil} }),
		"more than 1000 allowed values":                   attr(func(a *sinkpb.Attribute) { a.OneOf = make([]string, 1001) }),
		"the doc is longer than 16384 bytes":              attr(func(a *sinkpb.Attribute) { a.Doc = strings.Repeat("x", 20000) }),
		"the doc is not UTF-8":                            attr(func(a *sinkpb.Attribute) { a.Doc = "\xff" }),
		`attribute "a": the name is used twice`:           {Attributes: []*sinkpb.Attribute{{Name: "a", Type: text}, {Name: "a", Type: text}}},

		`block "b": block "b": block "b": block "b": block "b": block "b": block "b": `: deep,
		"more than 1000 attributes and blocks":                                          many,
		"at least 2 and at most 1 blocks cannot be met":                                 block(func(b *sinkpb.Block) { b.Repeated = true; b.MinItems = 2; b.MaxItems = 1 }),
		"a block that is not repeated is there at most once":                            block(func(b *sinkpb.Block) { b.MinItems = 2 }),
		"the number of blocks is out of range":                                          block(func(b *sinkpb.Block) { b.MaxItems = math.MaxUint32 }),
		`attribute "": it has a kind`:                                                   {Attributes: []*sinkpb.Attribute{nil}},
	} {
		if got, err := wire.SchemaFromProto(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", want, got, err)
		}
	}
	if _, err := wire.SchemaFromProto(nil); err != nil {
		t.Error(err)
	}
	if _, err := wire.SchemaToProto(schema.Schema{Attributes: []schema.Attribute{{Name: "a b"}}}); err == nil {
		t.Error("an unsound schema is sent")
	}
}

func TestDiagnostics(t *testing.T) {
	diags := []schema.Diagnostic{
		{Summary: "wrong", Detail: "do that", Path: []any{"route", 2, "x y"}},
		{Warning: true, Summary: "hm"},
		{Summary: "bad step", Path: []any{"a", -1, "b"}},
		{Summary: strings.Repeat("é", 5000) + "\xff", Path: []any{3.5}},
	}
	got := wire.DiagnosticsFromProto(wire.DiagnosticsToProto(diags))
	want := []schema.Diagnostic{diags[0], {Summary: "bad step", Path: []any{"a"}}, {Summary: strings.Repeat("é", 2048)}, diags[1]}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	got = wire.DiagnosticsFromProto([]*sinkpb.Diagnostic{nil, {Severity: 99, Path: []*sinkpb.PathStep{
		{Step: &sinkpb.PathStep_Index{Index: 1}}, {}, {Step: &sinkpb.PathStep_Index{Index: 1}},
	}}, {Summary: "x", Path: []*sinkpb.PathStep{{Step: &sinkpb.PathStep_Index{Index: math.MaxUint32}}}}})
	if len(got) != 3 || got[0].Warning || got[0].Summary == "" || got[1].Warning || !reflect.DeepEqual(got[1].Path, []any{1}) || got[2].Path != nil {
		t.Errorf("got %+v", got)
	}
	flood := make([]*sinkpb.Diagnostic, 500)
	for i := range flood {
		flood[i] = &sinkpb.Diagnostic{Severity: sinkpb.Severity_SEVERITY_WARNING, Summary: "w"}
	}
	flood[499] = &sinkpb.Diagnostic{Summary: "the error"}
	if got := wire.DiagnosticsFromProto(flood); len(got) != 100 || got[0].Summary != "the error" {
		t.Errorf("%d diagnostics, the first is %+v", len(got), got[0])
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a\xffb": "a\ufffdb", strings.Repeat("x", 5000): strings.Repeat("x", 4096),
		"x" + strings.Repeat("é", 3000): "x" + strings.Repeat("é", 2047),
	} {
		if got := wire.Text(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := wire.Text(strings.Repeat("\xffa", 3000)); len(got) > 4096 || !utf8.ValidString(got) {
		t.Errorf("%d bytes", len(got))
	}
}

// FuzzFromProto reads what a foreign plugin or daemon may send. What is taken
// must be sound enough to be sent again, unchanged.
func FuzzFromProto(f *testing.F) {
	seed := func(m proto.Message) {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	element := schema.Type{Kind: schema.KindNumber}
	s, err := wire.SchemaToProto(schema.Schema{
		Attributes: []schema.Attribute{
			{Name: "a", Type: schema.Type{Kind: schema.KindMap, Element: &element}, Doc: "d", Default: schema.Object{"x": 1.5}},
			{Name: "t", Type: schema.Type{Kind: schema.KindString}, PerEvent: true, Escape: []schema.Replacement{{From: "<", To: "&lt;"}}, OneOf: []string{"a", "b"}},
		},
		Blocks: []schema.Block{{Name: "b", Repeated: true, MinItems: 1, MaxItems: 2}},
	})
	if err != nil {
		f.Fatal(err)
	}
	seed(s)
	v, err := wire.ValueToProto(schema.List{schema.Object{"a": time.Second, "b": schema.JSON("[1]")}, schema.PerEvent{Key: "k"}, 1.5, "x", nil})
	if err != nil {
		f.Fatal(err)
	}
	seed(v)
	seed(&sinkpb.ConfigureResponse{Diagnostics: wire.DiagnosticsToProto([]schema.Diagnostic{{Summary: "s", Detail: "d", Path: []any{"a", 1}}})})
	f.Fuzz(func(t *testing.T, data []byte) {
		var s sinkpb.Schema
		if proto.Unmarshal(data, &s) == nil {
			if got, err := wire.SchemaFromProto(&s); err == nil {
				message, err := wire.SchemaToProto(got)
				if err != nil {
					t.Fatalf("%+v: %v", got, err)
				}
				if again, err := wire.SchemaFromProto(message); err != nil || !reflect.DeepEqual(again, got) {
					t.Errorf("%+v became %+v, %v", got, again, err)
				}
			}
		}
		var v sinkpb.Value
		if proto.Unmarshal(data, &v) == nil {
			if got, err := wire.ValueFromProto(&v); err == nil {
				message, err := wire.ValueToProto(got)
				if err != nil {
					t.Fatalf("%+v: %v", got, err)
				}
				if again, err := wire.ValueFromProto(message); err != nil || !reflect.DeepEqual(again, got) {
					t.Errorf("%+v became %+v, %v", got, again, err)
				}
			}
		}
		var d sinkpb.ConfigureResponse
		if proto.Unmarshal(data, &d) == nil {
			got := wire.DiagnosticsFromProto(d.GetDiagnostics())
			if again := wire.DiagnosticsFromProto(wire.DiagnosticsToProto(got)); len(got)+len(again) > 0 && !reflect.DeepEqual(again, got) {
				t.Errorf("%+v became %+v", got, again)
			}
		}
	})
}
