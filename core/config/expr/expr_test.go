package expr_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/oklog/ulid/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/plugins/schema"
)

// The methods are what a pipeline takes.
var (
	_ pipeline.Match = (*expr.Program)(nil).Match
	_ pipeline.Text  = (*expr.Program)(nil).Text
	_ pipeline.Value = (*expr.Program)(nil).Value
)

const body = `{"Type":"Public","GroupId":"@TGS#1","Big":9007199254740993,"BigText":"9007199254740993","n":5,"half":0.5,"neg":-3,
	"yes":true,"no":false,"nothing":null,"text":"héllo","twice":1,"twice":{"last":2},"zero":0,
	"list":[1,2,3],"words":["b","a","b"],"members":[{"id":"u1","age":30},{"id":"u2"},{"id":null}],
	"nest":{"a":{"b":{"c":"deep"}}},"evil":"<!channel> & co","EventTime":1670574414123,"html":["<a>",{"<k>":"<v>"}],"empty":""}`

func sample() *event.Event {
	return &event.Event{
		ID:     ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV"),
		Source: "chat", Type: "Group.Changed", Subject: "@TGS#1",
		Time:       time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC),
		RemoteAddr: "192.0.2.7", ContentType: "application/json",
		Headers: event.Pairs{{Name: "user-agent", Value: "curl"}, {Name: "x-event-type", Value: "push"}},
		Query:   event.Pairs{{Name: "SdkAppid", Value: "1400000000"}},
		Body:    []byte(body),
	}
}

// parse parses an expression, as the value of an attribute x.
func parse(t testing.TB, src string) hclsyntax.Expression {
	t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte("x = "+src+"\n"), "test.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", src, diags)
	}
	attr := file.Body.(*hclsyntax.Body).Attributes["x"]
	if attr == nil {
		t.Fatalf("%s: no attribute", src)
	}
	return attr.Expr
}

const secretMark = "secret"

func functions() expr.Functions {
	return expr.Functions{"env": function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam: &function.Parameter{Name: "default", Type: cty.String},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			switch name := args[0].AsString(); {
			case name == "TOKEN":
				return cty.StringVal("s3cret").Mark(secretMark), nil
			case len(args) > 1:
				return args[1].Mark(secretMark), nil
			default:
				return cty.DynamicVal, function.NewArgErrorf(0, "the variable %s is not set", name)
			}
		},
	})}
}

func compile(t testing.TB, src string) *expr.Program {
	t.Helper()
	p, diags := expr.Compile(parse(t, src), expr.EventScope, functions())
	if diags.HasErrors() {
		t.Fatalf("%s: %v", src, diags)
	}
	return p
}

func view() *event.View { return event.NewView(sample()) }

// TestMeaning shows what expressions evaluate to, as JSON.
func TestMeaning(t *testing.T) {
	t.Parallel()
	tests := []struct{ src, want string }{
		// Attributes.
		{`event.id`, `"01ARZ3NDEKTSV4RRFFQ69G5FAV"`},
		{`event.source`, `"chat"`},
		{`event.type`, `"Group.Changed"`},
		{`event.subject`, `"@TGS#1"`},
		{`event.time`, `"2026-01-02T03:04:05.678Z"`},
		{`event.remote_addr`, `"192.0.2.7"`},
		{`event.content_type`, `"application/json"`},
		{`event.headers["x-event-type"]`, `"push"`},
		{`event.headers.x-event-type`, `"push"`},
		{`event.headers.nope`, `null`},
		{`event.headers`, `{"user-agent":"curl","x-event-type":"push"}`},
		{`event.query.SdkAppid`, `"1400000000"`},
		{`event["type"]`, `"Group.Changed"`},
		{`event[join("", ["ty", "pe"])]`, `"Group.Changed"`},
		{`length(event.body) > 100`, `true`},
		{`event.data.GroupId`, `"@TGS#1"`},
		{`event.data.twice`, `{"last":2}`},
		{`event.data.twice.last`, `2`},
		{`event.data["nest"]["a"].b.c`, `"deep"`},
		{`event.data.members[1].id`, `"u2"`},
		{`event.data.members.1.id`, `"u2"`},
		{`event.data.list["1"]`, `2`},
		{`event.data.list[event.data.n - 4]`, `2`},
		{`event.data[event.data.words[0]]`, `null`},
		// Paths to nowhere.
		{`event.data.missing.and.on`, `null`},
		{`event.data.text.on`, `null`},
		{`event.data.list.name`, `null`},
		{`event.data.list[7]`, `null`},
		{`event.data.list[-1]`, `null`},
		{`event.data.list[0.5]`, `null`},
		{`event.data.nothing.x[3]`, `null`},
		{`event.data.list[event.data.missing]`, `null`},
		{`event.data.list[event.data.list]`, `null`},
		// Null rules.
		{`event.data.missing == null`, `true`},
		{`event.data.nothing == event.data.missing`, `true`},
		{`event.data.missing != "x"`, `true`},
		{`event.data.missing == "x"`, `false`},
		{`event.data.missing == 0`, `false`},
		{`event.data.missing < 1`, `false`},
		{`event.data.missing >= 1`, `false`},
		{`1 > event.data.missing`, `false`},
		{`null <= null`, `false`},
		{`!event.data.missing`, `true`},
		{`event.data.missing && true`, `false`},
		{`true && event.data.missing`, `false`},
		{`event.data.missing || event.data.yes`, `true`},
		{`event.data.missing || null`, `false`},
		{`event.data.missing ? 1 : 2`, `2`},
		{`event.data.missing + 1`, `null`},
		{`1 - event.data.missing`, `null`},
		{`-event.data.missing`, `null`},
		{`upper(event.data.missing)`, `null`},
		{`length(event.data.missing)`, `null`},
		{`join(",", [event.type, event.data.missing])`, `null`},
		{`format("%s", event.data.missing)`, `null`},
		{`format("%d", event.data.n)`, `"5"`},
		{`coalesce(event.data.missing, null)`, `null`},
		{`coalesce(event.data.missing, "x")`, `"x"`},
		{`"a${event.data.missing}b"`, `"ab"`},
		{`"${event.data.missing}"`, `null`},
		{`[for m in event.data.missing : m]`, `[]`},
		{`{for k, v in event.data.missing : k => v}`, `{}`},
		{`"x%{ for m in event.data.missing }${m}%{ endfor }"`, `"x"`},
		{`[for m in event.data.members : m.id if m.age > 1]`, `["u1"]`},
		{`[for m in event.data.members : m.id if m.flag]`, `[]`},
		{`{(event.data.missing) = 1, b = 2}`, `{"b":2}`},
		{`{for m in event.data.members : m.id => m.age}`, `{"u1":30,"u2":null}`},
		{`event.data.missing[*].id`, `[]`},
		{`max(event.data.missing...)`, `null`},
		// Comparison.
		{`1 == "1"`, `false`},
		{`event.data.n == "5"`, `false`},
		{`event.data.yes == "true"`, `false`},
		{`event.data.list == [1, 2, 3]`, `true`},
		{`event.data.nest == {a = {b = {c = "deep"}}}`, `true`},
		{`event.data.members[0] == {age = 30, id = "u1"}`, `true`},
		{`split(",", "a,b") == ["a", "b"]`, `true`},
		{`[null] == [1]`, `false`},
		{`event.data.n > "4"`, `true`},
		{`event.data.Big == 9007199254740993`, `true`},
		{`event.data.Big == 9007199254740992`, `false`},
		{`event.data.Big + 1`, `9007199254740994`},
		{`event.data.BigText + 0 == event.data.Big`, `true`},
		{`event.data.BigText > 9007199254740992`, `true`},
		{`jsonencode({n = event.data.Big})`, `"{\"n\":9007199254740993}"`},
		{`event.data.EventTime / 1000 > 1670574414`, `true`},
		{`9223372036854775807 + 1`, `9223372036854775808`},
		{`-9223372036854775808 - 1`, `-9223372036854775809`},
		{`9223372036854775807 * 2`, `18446744073709551614`},
		{`18446744073709551615 == 18446744073709551615`, `true`},
		{`0.1 + 0.2 == 0.3`, `true`},
		{`7 / 2`, `3.5`},
		{`-7 % 3`, `-1`},
		{`7.5 % 2`, `1.5`},
		{`-event.data.zero`, `0`},
		{`1e3`, `1000`},
		// Logic.
		{`"true" && true`, `true`},
		{`event.data.yes && !event.data.no`, `true`},
		{`event.data.no && upper(event.data.list) == "x"`, `false`},
		{`tonumber(event.data.text) > 1 && false`, `false`},
		{`true || tonumber("x") > 1`, `true`},
		{`env("NOPE", "") != "" ? jsondecode(env("NOPE", "")) : {}`, `{}`},
		{`event.data.yes ? "a" : 1`, `"a"`},
		{`event.data.no ? "a" : 1`, `1`},
		// Text.
		{`"${event.type} is ${event.data.n} ${event.data.yes} ${event.data.half}"`, `"Group.Changed is 5 true 0.5"`},
		{`"%{ if event.data.yes }y%{ else }n%{ endif }"`, `"y"`},
		{`"%{ for i, m in event.data.members ~} ${i}:${m.id} %{ endfor }"`, `"0:u1 1:u2 2: "`},
		{"<<-EOT\n    a ${event.data.n}\n      b\n    EOT", `"a 5\n  b\n"`},
		{`"$${x} %%{y}"`, `"${x} %{y}"`},
		{`"cafe` + "\u0301" + `" == "caf` + "\u00e9" + `"`, `true`},
		// Construction.
		{`{a = 1, "b-c" = [event.data.n], (event.type) = null}`, `{"Group.Changed":null,"a":1,"b-c":[5]}`},
		{`{true = 1, null = 2}`, `{"null":2,"true":1}`},
		{`event.data.members[*].id`, `["u1","u2",null]`},
		{`event.data.members.*.id`, `["u1","u2",null]`},
		{`event.data.nest[*].a.b.c`, `["deep"]`},
		{`event.data.text[*]`, `["héllo"]`},
		{`{for w in event.data.words : w => length(w)...}`, `{"a":[1],"b":[1,1]}`},
		{`[for k, v in event.data.nest : "${k}=${v.b.c}"]`, `["a=deep"]`},
		{`[for a in event.data.list : [for b in event.data.list : a * b if b > a]]`, `[[2,3],[6],[]]`},
		{`[for m in event.data.members : m[*].id]`, `[["u1"],["u2"],[null]]`},
		{`[for k in ["Type", "nope"] : event.data[k]]`, `["Public",null]`},
		{`{for i, x in [10, 20] : i => x}`, `{"0":10,"1":20}`},
		// Functions.
		{`try(tonumber(event.data.text), 7)`, `7`},
		{`try(regex("x(", "y"), "bad")`, `"bad"`},
		{`can(regex("^Group\\.", event.type))`, `true`},
		{`can(tonumber(event.data.text))`, `false`},
		{`matches("^Pub", event.data.Type)`, `true`},
		{`matches("^Pub", event.data.missing)`, `null`},
		{`regex("(\\w+)\\.(\\w+)", event.type)`, `["Group","Changed"]`},
		{`regex("(?P<a>\\w+)\\.", event.type).a`, `"Group"`},
		{`regexall("[a-z]+", event.type)`, `["roup","hanged"]`},
		{`regexreplace(event.type, "(\\w+)\\.(\\w+)", "$2 $1")`, `"Changed Group"`},
		{`upper(event.data.text)`, `"HÉLLO"`},
		{`length(event.data.text)`, `5`},
		{`length(event.data.list)`, `3`},
		{`substr(event.data.text, 1, 2)`, `"él"`},
		{`replace(event.data.text, "l", "L")`, `"héLLo"`},
		{`contains(event.data.words, "a")`, `true`},
		{`contains(event.data.words, "c")`, `false`},
		{`sort(distinct(event.data.words))`, `["a","b"]`},
		{`keys(event.data.members[0])`, `["age","id"]`},
		{`values(event.data.members[0])`, `[30,"u1"]`},
		{`lookup(event.data.nest, "zz", "d")`, `"d"`},
		{`lookup(event.data.missing, "zz", "d")`, `"d"`},
		{`merge({a = 1}, event.data.missing, {a = 2})`, `{"a":2}`},
		{`concat(event.data.list, ["x"])`, `[1,2,3,"x"]`},
		{`flatten([event.data.list, [[4]], 5])`, `[1,2,3,4,5]`},
		{`compact(["a", "", event.data.missing])`, `["a"]`},
		{`reverse(event.data.list)`, `[3,2,1]`},
		{`slice(event.data.list, 1, 9)`, `[2,3]`},
		{`element(event.data.list, -1)`, `3`},
		{`element([], 1)`, `null`},
		{`min(event.data.list...)`, `1`},
		{`max(3, "11", 5)`, `11`},
		{`[abs(event.data.neg), ceil(event.data.half), floor(event.data.half)]`, `[3,1,0]`},
		{`parseint("ff", 16)`, `255`},
		{`[tostring(5), tonumber("5"), tobool("true")]`, `["5",5,true]`},
		{`jsondecode(jsonencode(event.data.members[0]))`, `{"age":30,"id":"u1"}`},
		{`jsonencode(event.data.missing)`, `"null"`},
		{`jsonencode(event.data.evil)`, `"\"\\u003c!channel\\u003e \\u0026 co\""`},
		{`base64decode(base64encode(event.data.text))`, `"héllo"`},
		{`urlencode("a b&c")`, `"a+b%26c"`},
		{`sha256("abc")`, `"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"`},
		{`formatdate("YYYY-MM-DD", event.time)`, `"2026-01-02"`},
		{`timeadd(event.time, "1h")`, `"2026-01-02T04:04:05Z"`},
		{`format("%s-%05.1f", event.data.GroupId, event.data.half)`, `"@TGS#1-000.5"`},
		{`indent(2, "a\nb")`, `"a\n  b"`},
		{`[trim("xax", "x"), trimspace(" a "), trimprefix("ab", "a"), trimsuffix("ab", "b"), chomp("a\n"), title("ab cd"), lower("A")]`, `["a","a","b","a","a","Ab Cd","a"]`},
		{`[startswith("ab", "a"), endswith("ab", "a"), strcontains("abc", "b")]`, `[true,false,true]`},
		{`raw(event.data.evil) == event.data.evil`, `true`},
		{`env("TOKEN")`, `"s3cret"`},
	}
	for _, tt := range tests {
		p := compile(t, tt.src)
		v, err := p.Value(view())
		got := "null"
		if v != nil {
			got = string(v.(schema.JSON))
		}
		if err != nil || got != tt.want {
			t.Errorf("%s\n got %s (%v)\nwant %s", tt.src, got, err, tt.want)
		}
	}
}

// TestEmptyEvent shows that what an event does not have is null.
func TestEmptyEvent(t *testing.T) {
	t.Parallel()
	for _, src := range []string{
		"event.subject", "event.type", "event.time", "event.remote_addr", "event.content_type",
		"event.data", "event.data.x", "event.headers.x", "event.query.x",
	} {
		v, err := compile(t, src).Value(event.NewView(&event.Event{Body: []byte("not JSON")}))
		if v != nil || err != nil {
			t.Errorf("%s: got %v, %v, want null", src, v, err)
		}
	}
	text, ok, err := compile(t, "event.body").Text(event.NewView(&event.Event{Body: []byte("\xff")}))
	if ok || err != nil {
		t.Errorf("a body that is not UTF-8: got %q, %v", text, err)
	}
	text, ok, err = compile(t, "event.body").Text(event.NewView(&event.Event{}))
	if !ok || text != "" || err != nil {
		t.Errorf("an empty body: got %q, %v, %v, want empty text", text, ok, err)
	}
	text, ok, err = compile(t, "event.headers.x").Text(event.NewView(&event.Event{
		Headers: event.Pairs{{Name: "x", Value: "a\xff"}},
	}))
	if !ok || text != "a\uFFFD" || err != nil {
		t.Errorf("a header that is not UTF-8: got %q, %v, %v", text, ok, err)
	}
}

// TestDiagnostics shows mistakes, where they are and what is told.
func TestDiagnostics(t *testing.T) {
	t.Parallel()
	tests := []struct{ src, at, want string }{
		{`event.tpye == "x"`, "10", `Did you mean "type"?`},
		{`events.type`, "5", `Did you mean "event"?`},
		{`type == "x"`, "5", `Did you mean "event.type"?`},
		{`event.type.x`, "15", "text, which has no attributes"},
		{`event.headers.a.b`, "20", "text, which has no attributes"},
		{`event.headers["X-Type"]`, "18", `headers["x-type"]`},
		{`uper("x")`, "5", `Did you mean "upper"?`},
		{`nope("x")`, "5", `There is no function "nope".`},
		{`upper()`, "5", "upper(text)"},
		{`upper("a", "b")`, "5", "upper(text)"},
		{`event.time < "2026-01-01"`, "18", "no number"},
		{`event.type + 1 + [2]`, "22", "A number is required, but this is a list"},
		{`"abc" && event.type == "x"`, "5", "neither"},
		{`[1] ? 1 : 2`, "5", "A bool is required"},
		{`1 / 0`, "5", "Division by zero"},
		{`event.data.x == 1 / 0`, "21", "Division by zero"},
		{`{a = 1}.b`, "12", `no "b" in an object with a`},
		{`[1][3]`, "8", `no "3" in a list of 1`},
		{`"x${[1]}"`, "9", "Text is required in a template"},
		{`[for x in 5 : x]`, "15", "list or an object is required"},
		{`regex("a(", event.type)`, "11", "missing closing"},
		{`tonumber("x")`, "5", "no number"},
		{`{a.b = 1}`, "6", "parentheses"},
		{`env("NOPE")`, "9", "the variable NOPE is not set"},
		{`env(event.type)`, "9", "constants only"},
		{`env()`, "5", "at least 1"},
		{`env("TOKEN") + 1`, "5", "no number"},
		{`can(event.tpye)`, "14", `Did you mean "type"?`},
		{`[for event in event.data : event.x + evnt.x]`, "42", `Did you mean "event"?`},
		{`::x()`, "", ""},
		{`ns::fn()`, "5", "There is no function"},
	}
	for _, tt := range tests {
		if tt.at == "" {
			continue
		}
		p, diags := expr.Compile(parse(t, tt.src), expr.EventScope, functions())
		if p != nil || !diags.HasErrors() {
			t.Errorf("%s: no diagnostics", tt.src)
			continue
		}
		d := diags[0]
		if !strings.Contains(d.Detail, tt.want) {
			t.Errorf("%s: got %q, want %q in it", tt.src, d.Detail, tt.want)
		}
		if got := d.Subject.String(); !strings.HasPrefix(got, "test.hcl:1,"+tt.at+"-") {
			t.Errorf("%s: reported at %s, want column %s", tt.src, got, tt.at)
		}
		if len(diags) > 1 {
			t.Errorf("%s: more than one diagnostic: %v", tt.src, diags)
		}
		if strings.Contains(diags.Error(), "s3cret") {
			t.Errorf("%s: the diagnostic has the secret: %v", tt.src, diags)
		}
	}
}
