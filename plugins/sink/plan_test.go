package sink

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

type format string

type inner struct {
	CertFile Path     `hcl:"cert_file,optional" doc:"the certificate"`
	Names    []string `hcl:"names,optional"`
}

type needing struct {
	To string `hcl:"to"`
}

type everything struct {
	private string //nolint:unused // has to be ignored
	Left    func() `hcl:"-"`

	Text     string                      `hcl:"text" doc:"some text"`
	Format   format                      `hcl:"format" default:"a" oneof:"a|b"`
	Flag     bool                        `hcl:"flag" default:"true"`
	Int      int                         `hcl:"int" default:"-5"`
	Int8     int8                        `hcl:"int8,optional"`
	Uint16   uint16                      `hcl:"uint16,optional"`
	Uint64   uint64                      `hcl:"uint64,optional"`
	Float    float64                     `hcl:"float" default:"1.5"`
	Float32  float32                     `hcl:"float32,optional"`
	Wait     time.Duration               `hcl:"wait" default:"1m30s"`
	Max      Size                        `hcl:"max" default:"10MiB"`
	File     Path                        `hcl:"file,optional"`
	Token    Secret                      `hcl:"token,optional"`
	Tokens   []Secret                    `hcl:"tokens,optional"`
	Hidden   string                      `hcl:"hidden,optional,sensitive"`
	HiddenN  int8                        `hcl:"hidden_n,optional,sensitive"`
	Codes    []int                       `hcl:"codes" default:"[1, 2]"`
	Labels   map[string]Duration         `hcl:"labels,optional"`
	Nested   map[string][]string         `hcl:"nested" default:"{\"a\":[\"b\"]}"`
	Raw      Any                         `hcl:"raw" default:"{\"a\":1e400}"`
	Maybe    *string                     `hcl:"maybe"`
	MaybeInt *int                        `hcl:"maybe_int" default:"7"`
	Message  PerEvent[string]            `hcl:"message" default:"hello" escape:"& &amp; < &lt;"`
	Headers  PerEvent[map[string]Secret] `hcl:"headers,optional"`
	TLS      *inner                      `hcl:"tls,block" doc:"transport"`
	Rotate   inner                       `hcl:"rotate,block"`
	Need     needing                     `hcl:"need,block"`
	Routes   []needing                   `hcl:"route,block" min:"1" max:"3"`
	Others   []*needing                  `hcl:"other,block"`
}

type Duration = time.Duration

func kind(k schema.Kind) schema.Type { return schema.Type{Kind: k} }

func of(k schema.Kind, element schema.Type) schema.Type {
	return schema.Type{Kind: k, Element: &element}
}

func TestSchemaOfStruct(t *testing.T) {
	p, err := newPlan(reflect.TypeFor[everything]())
	if err != nil {
		t.Fatal(err)
	}
	innerSchema := schema.Schema{Attributes: []schema.Attribute{
		{Name: "cert_file", Type: kind(schema.KindPath), Doc: "the certificate"},
		{Name: "names", Type: of(schema.KindList, kind(schema.KindString))},
	}}
	needingSchema := schema.Schema{Attributes: []schema.Attribute{{Name: "to", Type: kind(schema.KindString), Required: true}}}
	want := schema.Schema{
		Attributes: []schema.Attribute{
			{Name: "text", Type: kind(schema.KindString), Doc: "some text", Required: true},
			{Name: "format", Type: kind(schema.KindString), Default: "a", OneOf: []string{"a", "b"}},
			{Name: "flag", Type: kind(schema.KindBool), Default: true},
			{Name: "int", Type: kind(schema.KindNumber), Default: int64(-5)},
			{Name: "int8", Type: kind(schema.KindNumber)},
			{Name: "uint16", Type: kind(schema.KindNumber)},
			{Name: "uint64", Type: kind(schema.KindNumber)},
			{Name: "float", Type: kind(schema.KindNumber), Default: 1.5},
			{Name: "float32", Type: kind(schema.KindNumber)},
			{Name: "wait", Type: kind(schema.KindDuration), Default: 90 * time.Second},
			{Name: "max", Type: kind(schema.KindSize), Default: int64(10 << 20)},
			{Name: "file", Type: kind(schema.KindPath)},
			{Name: "token", Type: kind(schema.KindString), Sensitive: true},
			{Name: "tokens", Type: of(schema.KindList, kind(schema.KindString)), Sensitive: true},
			{Name: "hidden", Type: kind(schema.KindString), Sensitive: true},
			{Name: "hidden_n", Type: kind(schema.KindNumber), Sensitive: true},
			{Name: "codes", Type: of(schema.KindList, kind(schema.KindNumber)), Default: schema.List{int64(1), int64(2)}},
			{Name: "labels", Type: of(schema.KindMap, kind(schema.KindDuration))},
			{Name: "nested", Type: of(schema.KindMap, of(schema.KindList, kind(schema.KindString))), Default: schema.Object{"a": schema.List{"b"}}},
			{Name: "raw", Type: kind(schema.KindAny), Default: schema.JSON(`{"a":1e400}`)},
			{Name: "maybe", Type: kind(schema.KindString)},
			{Name: "maybe_int", Type: kind(schema.KindNumber), Default: int64(7)},
			{Name: "message", Type: kind(schema.KindString), Default: "hello", PerEvent: true, Escape: []schema.Replacement{{From: "&", To: "&amp;"}, {From: "<", To: "&lt;"}}},
			{Name: "headers", Type: of(schema.KindMap, kind(schema.KindString)), Sensitive: true, PerEvent: true},
		},
		Blocks: []schema.Block{
			{Name: "tls", Doc: "transport", Schema: innerSchema},
			{Name: "rotate", Schema: innerSchema},
			{Name: "need", MinItems: 1, Schema: needingSchema},
			{Name: "route", Repeated: true, MinItems: 1, MaxItems: 3, Schema: needingSchema},
			{Name: "other", Repeated: true, Schema: needingSchema},
		},
	}
	if !reflect.DeepEqual(p.schema, want) {
		t.Errorf("got  %+v\nwant %+v", p.schema, want)
	}
	message, err := wire.SchemaToProto(p.schema)
	if err != nil {
		t.Fatal(err)
	}
	back, err := wire.SchemaFromProto(message)
	if err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("over the wire: %+v, %v", back, err)
	}
}

type endless struct {
	Next *endless `hcl:"next,block"`
}

func TestBadStructs(t *testing.T) {
	type embedded struct{ needing }
	_ = embedded{}
	tests := map[string]struct {
		cfg  any
		want string
	}{
		"no struct": {"", "the settings of a sink are a struct, not string"},
		"no tag":    {struct{ A string }{}, `.A: the tag hcl:"NAME" is missing`},
		"empty name": {struct {
			A string `hcl:",optional"`
		}{}, `.A: the tag hcl:"NAME" is missing`},
		"not exported": {struct {
			a string `hcl:"a"`
		}{}, ".a: a setting needs an exported field"},
		"unknown option": {struct {
			A string `hcl:"a,optinal"`
		}{}, `.A: the tag hcl has an unknown option "optinal"`},
		"bad name": {struct {
			A string `hcl:"a b"`
		}{}, `attribute "a b": a name starts with`},
		"twice": {struct {
			A string  `hcl:"a"`
			B needing `hcl:"a,block"`
		}{}, `block "a": the name is used twice`},
		"interface": {struct {
			A any `hcl:"a"`
		}{}, ".A: interface {} is no type of a setting"},
		"bytes": {struct {
			A []byte `hcl:"a"`
		}{}, ".A: []uint8 is no type of a setting: use string"},
		"array": {struct {
			A [2]int `hcl:"a"`
		}{}, ".A: [2]int is no type of a setting"},
		"struct": {struct {
			A needing `hcl:"a"`
		}{}, `a struct is a block, hcl:"NAME,block"`},
		"time": {struct {
			A time.Time `hcl:"a"`
		}{}, "time.Time is no type of an attribute"},
		"map key": {struct {
			A map[int]string `hcl:"a"`
		}{}, "the keys of a map are strings"},
		"pointer element": {struct {
			A []*string `hcl:"a"`
		}{}, "its elements are never null"},
		"pointer to list": {struct {
			A *[]string `hcl:"a"`
		}{}, "a pointer to []string is not needed"},
		"block of text": {struct {
			A string `hcl:"a,block"`
		}{}, "a block is a struct, a pointer to one or a slice of them, not string"},
		"block of texts": {struct {
			A []string `hcl:"a,block"`
		}{}, "not []string"},
		"secret block": {struct {
			A Secret `hcl:"a,block"`
		}{}, "not sink.Secret"},
		"sensitive block": {struct {
			A needing `hcl:"a,block,sensitive"`
		}{}, "a block is not sensitive"},
		"optional block": {struct {
			A needing `hcl:"a,block,optional"`
		}{}, "has required settings is a pointer"},
		"block default": {struct {
			A needing `hcl:"a,block" default:"1"`
		}{}, `a block has no tag "default"`},
		"attribute min": {struct {
			A []string `hcl:"a" min:"1"`
		}{}, `an attribute has no tag "min"`},
		"single min": {struct {
			A *needing `hcl:"a,block" min:"1"`
		}{}, `only a block that is a slice has a tag "min"`},
		"min number": {struct {
			A []needing `hcl:"a,block" min:"-1"`
		}{}, `the tag min:"-1" is not a number`},
		"min over max": {struct {
			A []needing `hcl:"a,block" min:"3" max:"2"`
		}{}, "at least 3 and at most 2 blocks cannot be met"},
		"endless": {endless{}, "blocks are nested deeper than 8 levels"},
		"default number": {struct {
			A int `hcl:"a" default:"x"`
		}{}, `.A: default "x": it is not JSON`},
		"default range": {struct {
			A int8 `hcl:"a" default:"200"`
		}{}, `.A: default "200": 200 is not a whole number from -128 to 127`},
		"default two": {struct {
			A int `hcl:"a" default:"1 2"`
		}{}, "it is not one JSON value"},
		"default duration": {struct {
			A time.Duration `hcl:"a" default:"5"`
		}{}, `duration "5" is not like`},
		"default size": {struct {
			A Size `hcl:"a" default:"5"`
		}{}, `size "5" is not a number with a unit`},
		"default list": {struct {
			A []int `hcl:"a" default:"[\"x\"]"`
		}{}, "element 0: a number is expected, not a string"},
		"default one of": {struct {
			A string `hcl:"a" default:"c" oneof:"a|b"`
		}{}, `the default "c" is not among the allowed values`},
		"one of number": {struct {
			A int `hcl:"a" oneof:"1|2"`
		}{}, "only text can be one of a list of values"},
		"one of twice": {struct {
			A string `hcl:"a" oneof:"b|b"`
		}{}, "listed twice"},
		"one of per event": {struct {
			A PerEvent[string] `hcl:"a" oneof:"1|2"`
		}{}, "a PerEvent cannot be one of a list of values"},
		"escape odd": {struct {
			A PerEvent[string] `hcl:"a" escape:"& &amp; <"`
		}{}, "is not pairs of FROM TO"},
		"escape twice": {struct {
			A PerEvent[string] `hcl:"a" escape:"& 1 & 2"`
		}{}, `"&" is replaced twice`},
		"escape fixed": {struct {
			A string `hcl:"a" escape:"& 1"`
		}{}, "only what is evaluated per event can be escaped"},
		"per event bad": {struct {
			A PerEvent[chan int] `hcl:"a"`
		}{}, "chan int is no type of a setting"},
		"per event in list": {struct {
			A []PerEvent[string] `hcl:"a"`
		}{}, "is no type of an attribute"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := newPlan(reflect.TypeOf(test.cfg))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
	for name, info := range map[string]Info{"no name": {}, "bad name": {Name: "a b"}, "negative": {Name: "a", MaxInFlight: -1}, "linger": {Name: "a", Linger: -1}} {
		if _, err := newServer(nil, info, reflect.TypeFor[noConfig](), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// minimal are the settings that everything needs.
func minimal(more map[string]any) map[string]any {
	settings := map[string]any{
		"text": "x", "need": map[string]any{"to": "y"}, "route": []map[string]any{{"to": "z"}},
	}
	for name, v := range more {
		settings[name] = v
	}
	return settings
}

func TestDecodeDefaults(t *testing.T) {
	cfg, err := Decode[everything](minimal(nil))
	if err != nil {
		t.Fatal(err)
	}
	seven := 7
	want := everything{
		Text: "x", Format: "a", Flag: true, Int: -5, Float: 1.5, Wait: 90 * time.Second, Max: 10 << 20, Codes: []int{1, 2},
		Nested: map[string][]string{"a": {"b"}}, Raw: Any(`{"a":1e400}`), MaybeInt: &seven, Message: Fixed("hello"),
		Need: needing{"y"}, Routes: []needing{{"z"}},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func TestDecodeEverything(t *testing.T) {
	cfg, err := Decode[everything](minimal(map[string]any{
		"format": "b", "flag": false, "int": 1 << 40, "int8": -128, "uint16": 65535, "uint64": uint64(1 << 63), "float": 3, "float32": 0.5,
		"wait": "2h", "max": "1KiB", "file": "/x", "token": "t", "tokens": []string{"a", "b"}, "hidden": "h", "codes": []any{4, 5.0},
		"labels": map[string]any{"a": "1s", "b": time.Minute, "c": nil}, "nested": map[string][]string{}, "raw": map[string]any{"<": []int{1}},
		"maybe": "m", "maybe_int": nil, "message": FromEvent(func(ev Event) (string, bool) { return ev.Type, ev.Type != "" }),
		"headers": map[string]string{"h": "v"}, "tls": map[string]any{"cert_file": "c"}, "rotate": map[string]any{"names": []string{"n"}},
		"other": []map[string]any{{"to": "1"}, {"to": "2"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := cfg.Message.Get(Event{Type: "T"}); got != "T" || !ok || !cfg.Message.IsSet() {
		t.Errorf("message is %q, %v", got, ok)
	}
	if _, ok := cfg.Message.Get(Event{}); ok {
		t.Error("null is a value")
	}
	cfg.Message = PerEvent[string]{}
	m, seven := "m", 7
	want := everything{
		Text: "x", Format: "b", Int: 1 << 40, Int8: -128, Uint16: 65535, Uint64: 1 << 63, Float: 3, Float32: 0.5,
		Wait: 2 * time.Hour, Max: 1024, File: "/x", Token: NewSecret("t"), Tokens: []Secret{NewSecret("a"), NewSecret("b")}, Hidden: "h",
		Codes: []int{4, 5}, Labels: map[string]time.Duration{"a": time.Second, "b": time.Minute}, Nested: map[string][]string{}, Raw: Any(`{"<":[1]}`),
		Maybe: &m, MaybeInt: &seven, Headers: Fixed(map[string]Secret{"h": NewSecret("v")}), TLS: &inner{CertFile: "c"}, Rotate: inner{Names: []string{"n"}},
		Need: needing{"y"}, Routes: []needing{{"z"}}, Others: []*needing{{"1"}, {"2"}},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func TestDecodeMistakes(t *testing.T) {
	tests := map[string]struct {
		settings map[string]any
		want     []string
	}{
		"required": {map[string]any{"route": []map[string]any{{}}}, []string{
			`text: "text" is required`, `route[0].to: "to" is required`, `a block "need" is required`,
		}},
		"null is not there": {minimal(map[string]any{"text": nil}), []string{`text: "text" is required`}},
		"unknown":           {minimal(map[string]any{"textt": 1, "tls": map[string]any{"cert": "x"}}), []string{`textt: "textt" is not a setting`, `tls.cert: "cert" is not a setting`}},
		"types":             {minimal(map[string]any{"text": 1, "flag": "true"}), []string{"text: a string is expected, not a int", "flag: true or false is expected, not a string"}},
		"int8":              {minimal(map[string]any{"int8": 128}), []string{"int8: 128 is not a whole number from -128 to 127"}},
		"int":               {minimal(map[string]any{"int": 1.5}), []string{"int: 1.5 is not a whole number from -9223372036854775808 to 9223372036854775807"}},
		"int of big float":  {minimal(map[string]any{"int": 1e300}), []string{"int: 1e+300 is not"}},
		"uint16":            {minimal(map[string]any{"uint16": -1}), []string{"uint16: -1 is not a whole number from 0 to 65535"}},
		"uint16 large":      {minimal(map[string]any{"uint16": 65536}), []string{"from 0 to 65535"}},
		"uint64":            {minimal(map[string]any{"uint64": 1e20}), []string{"uint64: 1e+20 is not a whole number from 0 to 18446744073709551615"}},
		"float32":           {minimal(map[string]any{"float32": 1e300}), []string{"float32: 1e+300 is too large"}},
		"one of":            {minimal(map[string]any{"format": "c"}), []string{`format: "c" is not allowed here: it is one of a, b`}},
		"size":              {minimal(map[string]any{"max": -1}), []string{"max: a size is not negative"}},
		"size text":         {minimal(map[string]any{"max": "10 apples"}), []string{`max: size "10 apples" is not`}},
		"duration":          {minimal(map[string]any{"wait": "10"}), []string{`wait: duration "10" is not like`}},
		"list":              {minimal(map[string]any{"codes": []any{1, "x"}}), []string{"codes: element 1: a number is expected"}},
		"null in list":      {minimal(map[string]any{"tokens": []any{nil}}), []string{"tokens[0]: "}},
		"map":               {minimal(map[string]any{"nested": map[string]any{"a b": []any{nil}}}), []string{`nested["a b"][0]: a string is expected, not null`}},
		"block":             {minimal(map[string]any{"tls": "x"}), []string{"tls: a block is a map[string]any"}},
		"per event":         {minimal(map[string]any{"message": 5}), []string{"message: a string is expected"}},
		"wrong per event":   {minimal(map[string]any{"message": Fixed(5)}), []string{"message: a string is expected, not a sink.PerEvent[int]"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Decode[everything](test.settings)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %s", err, want)
				}
			}
			if got := len(strings.Split(err.Error(), "\n")); got != len(test.want) {
				t.Errorf("%d mistakes are told, want %d: %v", got, len(test.want), err)
			}
		})
	}
	_, err := Decode[everything](minimal(map[string]any{"hidden_n": 999}))
	if err == nil || strings.Contains(err.Error(), "999") {
		t.Errorf("a sensitive value: %v", err)
	}
}

type checked struct {
	Kind  string `hcl:"kind"`
	Route []struct {
		URL string `hcl:"url"`
	} `hcl:"route,block"`
}

func (c *checked) Validate() error {
	switch c.Kind {
	case "good":
		return nil
	case "panic":
		panic("kaboom")
	case "plain":
		return errors.New("it is wrong")
	}
	return fmt.Errorf("settings: %w", errors.Join(
		Invalid("route[1].url", "it is no URL", "give one"),
		errors.Join(Invalid(`labels["X-Y"].z`, "no", ""), errors.New("plain")),
		Invalid("a..b", "a bad path", "")))
}

func TestConfigureDiagnostics(t *testing.T) {
	opened := 0
	s, log := build(t, Info{}, func(_ context.Context, cfg checked) (Sink, error) {
		opened++
		switch len(cfg.Route) {
		case 1:
			return nil, fmt.Errorf("open: %w", Invalid("route[0]", "cannot be reached", ""))
		case 2:
			panic("kaboom")
		case 3:
			return nil, nil
		}
		return &funcSink{}, nil
	})
	unavailable := ""
	ask := func(validateOnly bool, settings schema.Object) []schema.Diagnostic {
		t.Helper()
		obj, err := wire.ObjectToProto(settings)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Configure(t.Context(), &sinkpb.ConfigureRequest{Sink: testRef, Settings: obj, ValidateOnly: validateOnly})
		if err != nil {
			t.Fatal(err)
		}
		unavailable = res.GetUnavailable()
		return wire.DiagnosticsFromProto(res.GetDiagnostics())
	}
	expectUnavailable := func(diags []schema.Diagnostic, want string) {
		t.Helper()
		if len(diags) > 0 || unavailable != want {
			t.Errorf("got %+v, unavailable %q; want %q", diags, unavailable, want)
		}
	}
	expect := func(got []schema.Diagnostic, want ...schema.Diagnostic) {
		t.Helper()
		if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	routes := func(n int) schema.Object {
		list := schema.List{}
		for range n {
			list = append(list, schema.Object{"url": "u"})
		}
		return schema.Object{"kind": "good", "route": list}
	}
	expect(ask(true, schema.Object{"kind": "bad"}),
		schema.Diagnostic{Summary: "it is no URL", Detail: "give one", Path: []any{"route", 1, "url"}},
		schema.Diagnostic{Summary: "no", Path: []any{"labels", "X-Y", "z"}},
		schema.Diagnostic{Summary: "plain"},
		schema.Diagnostic{Summary: "a..b: a bad path"})
	expect(ask(true, schema.Object{"kind": "plain"}), schema.Diagnostic{Summary: "it is wrong"})
	expect(ask(true, schema.Object{"kind": "panic"}), schema.Diagnostic{Summary: "the sink panicked in Validate: kaboom"})
	expect(ask(false, schema.Object{"kind": int64(1)}), schema.Diagnostic{Summary: "a string is expected, not a number", Path: []any{"kind"}})
	expect(ask(false, schema.Object{}), schema.Diagnostic{Summary: `"kind" is required`, Path: []any{"kind"}})
	expect(ask(true, schema.Object{"kind": "good", "route": "x"}), schema.Diagnostic{Summary: `"route" is a list of blocks`, Path: []any{"route"}})
	expect(ask(true, schema.Object{"kind": "good", "route": schema.List{nil}}), schema.Diagnostic{Summary: `"route" is a block`, Path: []any{"route", 0}})
	expect(ask(true, routes(1)))
	if opened != 0 {
		t.Error("it was opened without need")
	}
	expect(ask(false, routes(1)), schema.Diagnostic{Summary: "cannot be reached", Path: []any{"route", 0}})
	// What is no mistake in a setting may work later.
	expectUnavailable(ask(false, routes(2)), "the sink panicked in open: kaboom")
	expectUnavailable(ask(false, routes(3)), "the plugin's open returned neither a sink nor an error")
	expectUnavailable(ask(false, routes(0)), "")
	expect(ask(true, schema.Object{"kind": "plain"}), schema.Diagnostic{Summary: "it is wrong"})
	if !strings.Contains(log.String(), "TestConfigureDiagnostics") {
		t.Error("the stack of the panic is not in the log")
	}
}

func TestOpenTooLate(t *testing.T) {
	closed := false
	ctx, cancel := context.WithCancel(t.Context())
	s, _ := build(t, Info{}, func(context.Context, noConfig) (Sink, error) {
		cancel()
		return &funcSink{close: func(ctx context.Context) error { closed = true; return ctx.Err() }}, nil
	})
	if _, err := s.Configure(ctx, &sinkpb.ConfigureRequest{Sink: testRef}); err == nil || !closed || s.current != nil {
		t.Errorf("%v, closed %v", err, closed)
	}
}

func TestInvalidText(t *testing.T) {
	for err, want := range map[error]string{
		Invalid("a.b[0]", "it is wrong", "do that"): "a.b[0]: it is wrong (do that)",
		Invalid("", "it is wrong", ""):              "it is wrong",
		Invalid("a[", "it is wrong", ""):            "a[: it is wrong",
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}

func FuzzInvalidPath(f *testing.F) {
	for _, seed := range []string{"a", "a.b[0].c", `h["X-Y"]`, `h["\""][1]`, "a[", "a[-1]", "..", "a]", `["x`, "a[99999999999]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		steps, err := parsePath(path)
		if err != nil {
			return
		}
		// What was read, written, means the same again.
		again, err := parsePath(pathText(steps))
		if err != nil || len(steps) > 0 && !reflect.DeepEqual(steps, again) {
			t.Errorf("%q: %v became %q, %v: %v", path, steps, pathText(steps), again, err)
		}
	})
}
