package expr_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/plugins/schema"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		src  string
		want bool
		err  string
	}{
		{src: `event.type == "Group.Changed" && event.data.Type == "Public"`, want: true},
		{src: `event.type == "X" && event.data.Type == "Public"`},
		{src: `event.data.missing`},
		{src: `event.data.yes`, want: true},
		{src: `event.data.missing.x == null`, want: true},
		{src: `event.data.n`, err: "test.hcl:1,5-17: a match is true or false, but this one is a number"},
		{src: `event.data.text`, err: "is text"},
		{src: `event.data.list < 3`, err: "test.hcl:1,5-20: a number is required, but this is a list"},
		{src: `event.data.text > 3`, err: "text that is no number"},
		{src: `event.data.text && true`, err: `neither "true" nor "false"`},
		{src: `event.data.n / event.data.zero == 1`, err: "division by zero"},
		{src: `upper(event.data.list) == "x"`, err: "upper: text is required, but this is a list"},
		{src: `regex("nope", event.data.text) == "x"`, err: "regex: the pattern does not match"},
		{src: `[for x in event.data.n : x] == []`, err: "a for goes over a list or an object, but this is a number"},
		{src: `{for w in event.data.words : w => 1} == {}`, err: "two elements have the same key"},
	}
	for _, tt := range tests {
		p, diags := expr.CompileMatch(parse(t, tt.src), nil)
		if diags.HasErrors() {
			t.Errorf("%s: %v", tt.src, diags)
			continue
		}
		got, err := p.Match(view())
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %v, %v, want %v, %q", tt.src, got, err, tt.want, tt.err)
		}
		if err != nil && strings.Contains(err.Error(), "héllo") {
			t.Errorf("%s: the error has text of the event: %v", tt.src, err)
		}
	}
	for _, src := range []string{`event.type`, `"x"`, `1 + event.data.n`, `[event.type]`, `"a${event.type}"`, `{}`} {
		if _, diags := expr.CompileMatch(parse(t, src), nil); !diags.HasErrors() || !strings.Contains(diags[0].Detail, "A bool is required") {
			t.Errorf("%s as a match: got %v", src, diags)
		}
	}
}

// TestErrorsTellNothing shows that functions of cty, which quote what they were
// given, do not get to tell it.
func TestErrorsTellNothing(t *testing.T) {
	t.Parallel()
	for _, src := range []string{
		`formatdate("YYYY", event.data.text)`, `timeadd(event.data.text, "1h")`, `timeadd(event.time, event.data.text)`,
		`parseint(event.data.text, 10)`, `jsondecode(event.data.text)`, `base64decode(event.data.text)`,
		`regex(event.data.text, "x")`, `tonumber(event.data.text)`, `tobool(event.data.text)`, `format("%d", event.data.text)`,
		`format(event.data.text, 1)`, `substr(event.data.text, event.data.text, 1)`, `element(event.data.list, event.data.text)`,
		`indent(event.data.text, "x")`, `min(event.data.text, 1)`, `sort(event.data.text)`, `regex("(", event.data.text)`,
	} {
		p, diags := expr.Compile(parse(t, src), expr.EventScope, nil)
		if diags.HasErrors() {
			continue
		}
		_, err := p.Value(view())
		if err == nil {
			t.Errorf("%s: no error", src)
		} else if strings.Contains(err.Error(), "héllo") || strings.Contains(err.Error(), "llo") {
			t.Errorf("%s: %v", src, err)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	p, diags := expr.CompileText(parse(t, `"${headers["x-event-type"]}/${query.SdkAppid}/${data.Type}/${length(body) > 5}"`), expr.RequestScope, nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if got, ok, err := p.Text(view()); got != "push/1400000000/Public/true" || !ok || err != nil {
		t.Errorf("got %q, %v, %v", got, ok, err)
	}
	for _, tt := range []struct {
		src  string
		in   expr.Scope
		want string
	}{
		{`event.type`, expr.RequestScope, "sees headers, query, body and data"},
		{`header["x"]`, expr.RequestScope, `Did you mean "headers"?`},
		{`event.type`, expr.ConfigScope, "only constants and functions"},
		{`data`, expr.ConfigScope, "only constants and functions"},
		{`[headers]`, expr.RequestScope, "Text is required, but this is a list"},
	} {
		if _, diags := expr.CompileText(parse(t, tt.src), tt.in, nil); !diags.HasErrors() || !strings.Contains(strings.ReplaceAll(diags[0].Detail, " or A bool", ""), tt.want) &&
			!strings.Contains(diags[0].Detail, "but this is a list") {
			t.Errorf("%s: got %v, want %q", tt.src, diags, tt.want)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		src, want string
		ok        bool
	}{
		{`event.data.n`, "5", true},
		{`event.data.half`, "0.5", true},
		{`event.data.yes`, "true", true},
		{`event.data.missing`, "", false},
		{`event.data.empty`, "", true},
		{`event.data.Big`, "9007199254740993", true},
	} {
		if got, ok, err := compile(t, tt.src).Text(view()); got != tt.want || ok != tt.ok || err != nil {
			t.Errorf("%s: got %q, %v, %v", tt.src, got, ok, err)
		}
	}
	if _, _, err := compile(t, `event.data.list`).Text(view()); err == nil || !strings.Contains(err.Error(), "this is a list") {
		t.Errorf("a list as text: %v", err)
	}
}

func TestConstant(t *testing.T) {
	t.Parallel()
	secret := cty.StringVal("s3cret").Mark(secretMark)
	tests := []struct {
		src       string
		want      cty.Value
		sensitive bool
	}{
		{`1 + 2 * 3`, cty.NumberIntVal(7), false},
		{`"a${1}"`, cty.StringVal("a1"), false},
		{`null`, cty.NullVal(cty.DynamicPseudoType), false},
		{`[for x in [1, 2] : x * 2]`, cty.TupleVal([]cty.Value{cty.NumberIntVal(2), cty.NumberIntVal(4)}), false},
		{`env("TOKEN")`, secret, true},
		{`"Bearer ${env("TOKEN")}"`, cty.StringVal("Bearer s3cret").Mark(secretMark), true},
		{`[env("TOKEN"), "open"]`, cty.TupleVal([]cty.Value{secret, cty.StringVal("open")}), true},
		{`{a = env("TOKEN"), b = {c = upper("x")}}`, cty.ObjectVal(map[string]cty.Value{
			"a": secret, "b": cty.ObjectVal(map[string]cty.Value{"c": cty.StringVal("X")}),
		}), true},
		{`upper(env("TOKEN"))`, cty.StringVal("S3CRET").Mark(secretMark), true},
		{`env("TOKEN") == "x" ? [1] : ["y"]`, cty.TupleVal([]cty.Value{cty.StringVal("y")}).Mark(secretMark), true},
		{`env("NOPE", "dflt")`, cty.StringVal("dflt").Mark(secretMark), true},
		{`[for x in [env("TOKEN")] : "${x}!"]`, cty.TupleVal([]cty.Value{cty.StringVal("s3cret!")}).Mark(secretMark), true},
		{`try(jsondecode("x"), {})`, cty.EmptyObjectVal, false},
		{`true ? 1 : tonumber("x")`, cty.NumberIntVal(1), false},
	}
	for _, tt := range tests {
		p, diags := expr.Compile(parse(t, tt.src), expr.ConfigScope, functions())
		if diags.HasErrors() {
			t.Errorf("%s: %v", tt.src, diags)
			continue
		}
		got, ok := p.Constant()
		if !ok || !p.IsConstant() || !got.RawEquals(tt.want) {
			t.Errorf("%s:\n got %#v, %v\nwant %#v", tt.src, got, ok, tt.want)
		}
		if p.Sensitive() != tt.sensitive {
			t.Errorf("%s: sensitive is %v", tt.src, p.Sensitive())
		}
	}
	p := compile(t, `"Bearer ${env("TOKEN")} for ${event.id}"`)
	if _, ok := p.Constant(); ok || p.IsConstant() || !p.Sensitive() {
		t.Error("an expression with a secret and the event is not both sensitive and no constant")
	}
	if p := compile(t, `event.data`); p.Sensitive() || p.Range().Start.Column != 5 {
		t.Errorf("sensitive %v, at %v", p.Sensitive(), p.Range())
	}
}

var slackEscape = []schema.Replacement{{From: "&", To: "&amp;"}, {From: "<", To: "&lt;"}, {From: ">", To: "&gt;"}, {From: "5", To: "five"}}

func TestEscape(t *testing.T) {
	t.Parallel()
	text, anything := schema.Type{Kind: schema.KindString}, schema.Type{Kind: schema.KindAny}
	const evil = "&lt;!channel&gt; &amp; co"
	tests := []struct {
		src  string
		typ  schema.Type
		want string
	}{
		// A bare reference, a template, a function: once each.
		{`event.data.evil`, text, evil},
		{`"<b>${event.data.evil}</b>"`, text, "<b>" + evil + "</b>"},
		{`"${event.data.evil}"`, text, evil},
		{`lower(event.data.evil)`, text, evil},
		{`"<b>${upper("${event.data.evil}")}"`, text, "<b>&lt;!CHANNEL&gt; &amp; CO"},
		{`"<${"<${event.data.evil}>"}>"`, text, "<<" + evil + ">>"},
		{`event.data["evil"]`, text, evil},
		{`event.data.html[0]`, text, "&lt;a&gt;"},
		// raw opts out, once.
		{`raw(event.data.evil)`, text, "<!channel> & co"},
		{`"${raw(event.data.evil)} ${event.data.evil}"`, text, "<!channel> & co " + evil},
		{`upper(raw(event.data.evil))`, text, "&lt;!CHANNEL&gt; &amp; CO"},
		// Text of the configuration.
		{`"<!here> 5"`, text, "<!here> 5"},
		{`upper("<a>")`, text, "<A>"},
		{`"<a>${env("NOPE", "<x>")}${event.data.empty}"`, text, "<a><x>"},
		{`event.data.yes ? "<yes>" : "<no>"`, text, "<yes>"},
		{`event.data.no ? "<yes>" : event.data.evil`, text, evil},
		{`"%{ if event.data.yes }<b>${event.data.evil}%{ endif }"`, text, "<b>" + evil},
		{`"%{ for h in event.data.words }<${h}>%{ endfor }"`, text, "<b><a><b>"},
		{`"%{ for m in event.data.html[*] }%{ if can(upper(m)) }<i>${m}%{ endif }%{ endfor }"`, text, "<i>&lt;a&gt;"},
		{`"%{ for k in ["<Type>"] }${k}:${event.data.evil}%{ endfor }"`, text, "<Type>:" + evil},
		{`coalesce(event.data.missing, "<none>")`, text, "<none>"},
		{`coalesce(event.data.evil, "<none>")`, text, evil},
		{`try(tonumber(event.data.evil), "<bad>")`, text, "<bad>"},
		{`lookup(event.data, "evil", "<none>")`, text, evil},
		{`lookup(event.data, "nope", "<none>")`, text, "<none>"},
		// Decisions see what the event has.
		{`event.data.evil == "<!channel> & co" ? "<same>" : "other"`, text, "<same>"},
		{`length(event.data.evil) == 15 ? "ok" : "escaped"`, text, "ok"},
		{`"${event.data.evil}" == "<!channel> & co" ? "ok" : "escaped"`, text, "ok"},
		// Numbers are text where text is wanted.
		{`event.data.n`, text, "five"},
		{`"n=5 ${event.data.n} ${event.data.n + 0} ${5}"`, text, "n=5 five five 5"},
		{`event.data.missing`, text, "<nil>"},
		// Inside of lists and objects.
		{`[{type = "<t>", text = event.data.evil, n = event.data.n}]`, anything, `[{"n":5,"text":"\u0026lt;!channel\u0026gt; \u0026amp; co","type":"\u003ct\u003e"}]`},
		{`event.data.html`, anything, `["\u0026lt;a\u0026gt;",{"\u0026lt;k\u0026gt;":"\u0026lt;v\u0026gt;"}]`},
		{`[for h in event.data.words : "<${h}>"]`, anything, `["\u003cb\u003e","\u003ca\u003e","\u003cb\u003e"]`},
		{`{for k, v in event.data.html[1] : k => [v, raw(v), "<l>"]}`, anything, `{"\u0026lt;k\u0026gt;":["\u0026lt;v\u0026gt;","\u003cv\u003e","\u003cl\u003e"]}`},
		{`{(event.data.evil) = 1, "<k>" = 2}`, anything, `{"\u0026lt;!channel\u0026gt; \u0026amp; co":1,"\u003ck\u003e":2}`},
		{`event.data.html[*]`, anything, `["\u0026lt;a\u0026gt;",{"\u0026lt;k\u0026gt;":"\u0026lt;v\u0026gt;"}]`},
		{
			`[event.data.evil, "<c>", event.data.n]`,
			schema.Type{Kind: schema.KindList, Element: &text},
			"[" + evil + " <c> five]",
		},
		{
			`{a = event.data.evil, b = "<c>"}`,
			schema.Type{Kind: schema.KindMap, Element: &text},
			"map[a:" + evil + " b:<c>]",
		},
	}
	for _, tt := range tests {
		p, diags := expr.CompileSetting(parse(t, tt.src), functions(), expr.Setting{Type: tt.typ, Escape: slackEscape})
		if diags.HasErrors() {
			t.Errorf("%s: %v", tt.src, diags)
			continue
		}
		v, err := p.Value(view())
		got := fmt.Sprint(v)
		if j, ok := v.(schema.JSON); ok {
			got = string(j)
		}
		if got != tt.want || err != nil {
			t.Errorf("%s\n got %s (%v)\nwant %s", tt.src, got, err, tt.want)
		}
	}
}

func TestSetting(t *testing.T) {
	t.Parallel()
	number := schema.Type{Kind: schema.KindNumber}
	set := func(typ schema.Type) expr.Setting {
		return expr.Setting{
			Type: typ, Duration: time.ParseDuration,
			Size: func(s string) (int64, error) {
				if s != "1KiB" {
					return 0, errors.New("bad size")
				}
				return 1024, nil
			},
			Path: func(s string) (string, error) { return "/conf/" + s, nil },
		}
	}
	tests := []struct {
		src  string
		typ  schema.Type
		want schema.Value
		err  string
	}{
		{src: `event.data.n`, typ: number, want: int64(5)},
		{src: `event.data.half`, typ: number, want: 0.5},
		{src: `event.data.BigText`, typ: number, want: int64(9007199254740993)},
		{src: `event.data.text`, typ: number, err: "a number is required"},
		{src: `event.data.yes`, typ: schema.Type{Kind: schema.KindBool}, want: true},
		{src: `event.data.n`, typ: schema.Type{Kind: schema.KindBool}, err: "a bool is required"},
		{src: `"${event.data.n}s"`, typ: schema.Type{Kind: schema.KindDuration}, want: 5 * time.Second},
		{src: `event.data.text`, typ: schema.Type{Kind: schema.KindDuration}, err: "a duration is required"},
		{src: `event.data.n`, typ: schema.Type{Kind: schema.KindSize}, want: int64(5)},
		{src: `event.data.neg`, typ: schema.Type{Kind: schema.KindSize}, err: "a size is required"},
		{src: `"1KiB"`, typ: schema.Type{Kind: schema.KindSize}, want: int64(1024)},
		{src: `event.data.Type`, typ: schema.Type{Kind: schema.KindPath}, want: "/conf/Public"},
		{src: `event.data.list`, typ: schema.Type{Kind: schema.KindList, Element: &number}, want: schema.List{int64(1), int64(2), int64(3)}},
		{src: `event.data.words`, typ: schema.Type{Kind: schema.KindList, Element: &number}, err: "element 0: a number is required"},
		{src: `event.data.members[0]`, typ: schema.Type{Kind: schema.KindMap, Element: &schema.Type{Kind: schema.KindString}}, want: schema.Object{"id": "u1", "age": "30"}},
		{src: `event.data.n`, typ: schema.Type{Kind: schema.KindMap, Element: &number}, err: "an object is required, but this is a number"},
		{src: `event.data.missing`, typ: number, want: nil},
		{src: `[event.data.missing]`, typ: schema.Type{Kind: schema.KindList, Element: &number}, want: schema.List{nil}},
		{src: `event.data.twice`, typ: schema.Type{Kind: schema.KindAny}, want: schema.JSON(`{"last":2}`)},
	}
	for _, tt := range tests {
		p, diags := expr.CompileSetting(parse(t, tt.src), nil, set(tt.typ))
		if diags.HasErrors() {
			t.Errorf("%s: %v", tt.src, diags)
			continue
		}
		got, err := p.Value(view())
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %#v, %v, want %#v, %q", tt.src, got, err, tt.want, tt.err)
		}
	}
	for src, typ := range map[string]schema.Type{
		`[event.type]`: {Kind: schema.KindString}, `"x${event.type}"`: {Kind: schema.KindList, Element: &number},
		`"soon"`: {Kind: schema.KindDuration}, `"abc"`: number, `env("TOKEN")`: number,
	} {
		_, diags := expr.CompileSetting(parse(t, src), functions(), set(typ))
		if !diags.HasErrors() || strings.Contains(diags.Error(), "s3cret") {
			t.Errorf("%s as kind %d: got %v", src, typ.Kind, diags)
		}
	}
	if _, diags := expr.CompileSetting(parse(t, `event.type`), nil, expr.Setting{Type: schema.Type{Kind: schema.KindDuration}}); !diags.HasErrors() {
		t.Error("a duration without a reader compiles")
	}
	p, diags := expr.CompileSetting(parse(t, `event.data.Type`), nil, expr.Setting{Type: schema.Type{Kind: schema.KindString}, OneOf: []string{"a", "b"}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if _, err := p.Value(view()); err == nil || !strings.Contains(err.Error(), "one of a, b is required") {
		t.Errorf("a value that is not one of: %v", err)
	}
}

// TestBounds shows that what would take memory or time without end is refused,
// soon.
func TestBounds(t *testing.T) {
	t.Parallel()
	large := &event.Event{Body: []byte(`{"s":"` + strings.Repeat("a,", 300_000) + `","l":[` + strings.Repeat("1,", 200_000) + `1],"w":999999999,"words":["a","b"],"esc":"\u0041` + strings.Repeat("a,", 100_000) + `",
		"huge":1e999999999,"tiny":1e-2000,"digits":` + strings.Repeat("9", 2000) + `}`)}
	for _, tt := range []struct{ src, want string }{
		{`[for a in event.data.l : [for b in event.data.l : [for c in event.data.l : 1]]]`, "limit reached"},
		{`[for a in event.data.l : jsonencode(event.data.l)]`, "limit reached"},
		{`[for a in event.data.l : event.data.s]`, "limit reached"},
		{`[for a in event.data.l : event.data.s == "x" || event.data.esc == "x"]`, "limit reached"},
		{`[for a in event.data.l : event.data.s == event.data.s]`, "limit reached"},
		{`[for a in event.data.l : event.body == "x"]`, "limit reached"},
		{`[for a in event.data.l : event]`, "limit reached"},
		{`[for a in event.data.l : "x${event.data.s}"]`, "limit reached"},
		{`length([for i, a in event.data.l : event.data.l[i]])`, ""},
		{`regex("${join("", [for a in event.data.words : "(a{99}){9}"])}", event.data.s)`, "too large"},
		{`format("%999999999d", 1)`, "longer than"},
		{`format("%%%ds", event.data.w)`, ""},
		{`format(format("%%%dd", event.data.w), 1)`, "longer than"},
		{`format(join("", [for a in event.data.l : "%[1]s"]), event.data.s)`, "longer than"},
		{`replace(event.data.s, "", event.data.s)`, "longer than"},
		{`replace(event.data.s, "a", event.data.s)`, "longer than"},
		{`regexreplace(event.data.s, "a", event.data.s)`, "limit reached"},
		{`join(event.data.s, event.data.l)`, "longer than"},
		{`indent(event.data.w, "a\nb")`, "spaces"},
		{`event.data.huge > 1`, "out of range"},
		{`event.data.tiny > 1`, "out of range"},
		{`event.data.digits > 1`, "out of range"},
		{`regex(event.data.s, "x")`, "limit reached"},
		{`regex("(a{1000}){1000}", event.data.s)`, "diagnostic"},
		{`try([for a in event.data.l : jsonencode(event.data.l)], "swallowed")`, "limit reached"},
		{`false || can([for a in event.data.l : jsonencode(event.data.l)])`, "limit reached"},
		{`sort(split(",", event.data.s)) == []`, ""},
		{`length(distinct(concat(event.data.l, event.data.l)))`, ""},
		{`jsondecode("${join("", [for a in event.data.l : "["])}")`, "limit reached"},
	} {
		p, diags := expr.Compile(parse(t, tt.src), expr.EventScope, nil)
		if diags.HasErrors() {
			if tt.want != "diagnostic" && !strings.Contains(diags.Error(), tt.want) {
				t.Errorf("%s: %v", tt.src, diags)
			}
			continue
		}
		start := time.Now()
		_, err := p.Value(event.NewView(large))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.src, err, tt.want)
		}
		t.Logf("%v: %s", time.Since(start).Round(time.Millisecond), tt.src)
	}
	deep := event.NewView(&event.Event{Body: []byte(strings.Repeat("[", 2000))})
	if _, err := compile(t, `event.data == null`).Match(deep); !errors.Is(err, event.ErrJSONTooLarge) {
		t.Errorf("a body nested too deep: got %v, want ErrJSONTooLarge", err)
	}
	if got, err := compile(t, `event.type == "x" && event.data == null`).Match(deep); got || err != nil {
		t.Errorf("a mismatch on the type reads the body: %v, %v", got, err)
	}
}

func TestDepth(t *testing.T) {
	t.Parallel()
	chain := strings.Repeat(`event.data.x == 1 || `, expr.MaxDepth-100) + "true"
	if got, err := compile(t, chain).Match(view()); !got || err != nil {
		t.Errorf("a long chain: %v, %v", got, err)
	}
	_, diags := expr.Compile(parse(t, strings.Repeat("!", expr.MaxDepth+10)+"event.data.x"), expr.EventScope, nil)
	if !diags.HasErrors() || !strings.Contains(diags[0].Summary, "too deep") || len(diags) != 1 {
		t.Errorf("nested too deep: %v", diags)
	}
	fors := strings.Repeat("[for x in event.data.list : ", 70) + "x" + strings.Repeat("]", 70)
	if _, diags := expr.Compile(parse(t, fors), expr.EventScope, nil); !diags.HasErrors() {
		t.Error("70 nested fors compile")
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	p := compile(t, `join(",", [for m in event.data.members[*].id : "${m}" if m != null])`)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if got, _, err := p.Text(view()); got != "u1,u2" || err != nil {
					t.Errorf("got %q, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestFunctionDocs(t *testing.T) {
	t.Parallel()
	names := expr.FunctionNames()
	for i, d := range expr.FunctionDocs() {
		if d.Name != names[i] || !strings.HasPrefix(d.Usage, d.Name+"(") || !strings.HasSuffix(d.Doc, ".") {
			t.Errorf("%+v", d)
		}
		if i > 0 && names[i-1] >= d.Name {
			t.Errorf("%s is given twice or not sorted", d.Name)
		}
	}
}

func TestNoPanicOnOddExpressions(t *testing.T) {
	t.Parallel()
	if _, diags := expr.Compile(hcl.StaticExpr(cty.True, hcl.Range{}), expr.ConfigScope, nil); !diags.HasErrors() {
		t.Error("an expression that is not of the native syntax compiles")
	}
	_, diags := expr.Compile(parse(t, `nothing()`), expr.ConfigScope, nil)
	if !diags.HasErrors() {
		t.Error("an unknown function compiles")
	}
}
