package expr_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
)

// tableOf returns a table of one pipeline for each match, all from the source
// "a". Without guards every match is asked.
func tableOf(matches []*expr.Program, guards bool) *pipeline.Table {
	pipelines := make([]pipeline.Pipeline, len(matches))
	for i, p := range matches {
		pipelines[i] = pipeline.Pipeline{Name: fmt.Sprint(i), From: []string{"a"}, Sinks: []string{"x"}, Match: p.Match}
		if guards {
			pipelines[i].Guard = p.Guard()
		}
	}
	return pipeline.NewTable(pipelines, nil)
}

// compileMatch compiles a match; ok is false where it is a mistake.
func compileMatch(src string) (p *expr.Program, e hclsyntax.Expression, ok bool) {
	e, diags := hclsyntax.ParseExpression([]byte(src), "f.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, nil, false
	}
	p, diags = expr.CompileMatch(e, nil)
	return p, e, !diags.HasErrors()
}

// routing is what came of one pipeline: "", "route" or "dead".
func routing(routes []event.Route, n int) []string {
	out := make([]string, n)
	last := -1
	for _, r := range routes {
		var i int
		if _, err := fmt.Sscan(r.Pipeline, &i); err != nil || i <= last {
			return []string{"out of order"}
		}
		last = i
		if out[i] = "route"; r.Dead != nil {
			out[i] = "dead"
		}
	}
	return out
}

// byReference is what plain HCL says of a match; ok is false where it cannot.
func byReference(e hclsyntax.Expression, ev *event.Event) (out string, ok bool) {
	v, err := newReference(ev).eval(e)
	switch {
	case errors.Is(err, errUnsupported):
		return "", false
	case err != nil:
		return "dead", true
	case v.IsNull():
		return "", true
	case v.Type() != cty.Bool:
		return "dead", true
	case v.True():
		return "route", true
	}
	return "", true
}

// compareTables holds the table against plain HCL, and against one that asks
// every match. It returns how many matches were compared with each result.
func compareTables(t *testing.T, programs []*expr.Program, exprs []hclsyntax.Expression, srcs []string, ev *event.Event) map[string]int {
	t.Helper()
	guarded := tableOf(programs, true).Route(event.NewView(ev))
	plain := tableOf(programs, false).Route(event.NewView(ev))
	if !reflect.DeepEqual(guarded, plain) {
		t.Fatalf("%s\ntype %q body %q\nwith guards    %+v\nwithout guards %+v", strings.Join(srcs, "\n"), ev.Type, ev.Body, guarded, plain)
	}
	count := make(map[string]int)
	for i, got := range routing(guarded, len(programs)) {
		want, ok := byReference(exprs[i], ev)
		if !ok {
			count["skipped"]++
			continue
		}
		count[want]++
		if got != want {
			t.Fatalf("pipeline %d: %s\ntype %q body %q\n got %q\nwant %q", i, srcs[i], ev.Type, ev.Body, got, want)
		}
	}
	return count
}

// longType is one that guards do not speak of.
var longType = strings.Repeat("long", 300)

func (s *source) typ() string {
	return s.pick("", "a", "b", "c", "Public", "é", "e\u0301", "\u212a", "K", longType)
}

func (s *source) constant() string {
	return s.pick(`"a"`, `"b"`, `"Public"`, `"é"`, `"5"`, `""`, "5", "5", "0", "-3", "0.5", "true", "false", "null", "null", "9223372036854775807", "18446744073709551616")
}

// alike writes a match that compares the same as others do, so that it is looked
// up.
func (s *source) alike() string {
	out := fmt.Sprintf("%s == %s", s.pick("event.data.a", "event.headers.h"), s.constant())
	switch s.IntN(4) {
	case 0:
		out += " || event.data.a == " + s.constant()
	case 1:
		out += fmt.Sprintf(" && event.type == %q", s.typ())
	}
	return out
}

// comparison writes one that a guard can make something of, or nearly so.
func (s *source) comparison() string {
	side := s.pick("event.data.a", "event.data.b", "event.headers.h") // often the same, so that they are looked up
	if s.IntN(3) == 0 {
		side = s.pick("event.data.n", `event.data["t"]`, "event.data.l[0]", "event.data.l", "event.data.o.a",
			"event.data", "event.subject", "event.body", "event.source")
	}
	op := s.pick("==", "==", "==", "==", "!=")
	switch s.IntN(12) {
	case 0, 1, 2, 3:
		return fmt.Sprintf("event.type %s %q", op, s.typ())
	case 4:
		return fmt.Sprintf("%q %s event.type", s.typ(), op)
	case 5:
		return fmt.Sprintf("contains([%q, %q, %s], event.type)", s.typ(), s.typ(), s.constant())
	case 6:
		return s.constant() + " " + op + " " + side
	case 7:
		return s.pick("event.type == null", "event.data.a", "event.data.n > 0", "event.data.a / event.data.n == 1", "upper(event.data.t) == \"A\"", "true", "false")
	}
	return side + " " + op + " " + s.constant()
}

// scalar writes one for a body, in one of the ways that it can be written.
func (s *source) scalar() string {
	return s.pick("null", "null", "5", "5.0", "5e0", "0", "-0", "-3", "true", "false", `"a"`, `"\u0061"`, `"Public"`, `"é"`, "\"e\u0301\"", `"\u00e9"`, `"5"`, `""`)
}

// match writes a match as people do.
func (s *source) match(depth int) string {
	if depth == 0 {
		return s.comparison()
	}
	l, r := s.match(depth-1-s.IntN(depth)), s.match(depth-1-s.IntN(depth))
	switch s.IntN(16) {
	case 0:
		return "!(" + l + ")"
	case 1:
		return "(" + l + " ? " + r + " : " + s.comparison() + ")"
	case 2:
		return "(" + l + ") && (" + s.expression(2) + ")"
	case 3, 4, 5, 6:
		return "(" + l + " || " + r + ")"
	}
	return "(" + l + " && " + r + ")"
}

// TestTableDifferential compares tables of random matches with what plain HCL
// says of each.
func TestTableDifferential(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	n := 80
	if testing.Short() {
		n = 30
	}
	total := make(map[string]int)
	asked := 0
	for i := range n {
		s := &source{Rand: rand.New(rand.NewPCG(seed, uint64(i)))}
		var programs []*expr.Program
		var exprs []hclsyntax.Expression
		var srcs []string
		for range 1 + s.IntN(80) {
			src := s.match(s.IntN(4))
			if i%2 == 0 && s.IntN(4) > 0 {
				src = s.alike()
			}
			if p, e, ok := compileMatch(src); ok {
				programs, exprs, srcs = append(programs, p), append(exprs, e), append(srcs, src)
				if g := p.Guard(); g.Types == nil && g.AnyOf == nil {
					asked++
				}
			}
		}
		for range 4 {
			ev := s.event()
			ev.Source, ev.Type = "a", s.typ()
			if s.IntN(2) == 0 {
				ev.Body = fmt.Appendf(nil, `{"a":%s,"b":%s,"n":%s,"t":%s,"l":[%s]}`, s.scalar(), s.scalar(), s.scalar(), s.scalar(), s.scalar())
			}
			for result, n := range compareTables(t, programs, exprs, srcs, ev) {
				total[result] += n
			}
		}
	}
	t.Logf("seed %d: %v, %d without a guard", seed, total, asked)
	for _, result := range []string{"", "route", "dead"} {
		if total[result] < n/10 {
			t.Errorf("too few with the result %q: %v", result, total)
		}
	}
}

// Bodies that cannot be read, and texts that reach a limit, make dead letters of
// the same matches with an index as without.
func TestTableOfHostileEvents(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 20<<20)
	var matches []*expr.Program
	add := func(src string) {
		p, _, ok := compileMatch(src)
		if !ok {
			t.Fatal(src)
		}
		matches = append(matches, p)
	}
	for i := range 8 {
		add(fmt.Sprintf(`event.data.a == "%d"`, i))
		add(fmt.Sprintf(`event.type == "t%d" && event.data.a == "1"`, i))
		add(fmt.Sprintf(`event.data.a == "1" && event.type == "t%d"`, i))
		add(fmt.Sprintf(`event.data.big == "%d" || event.body == "x" || event.headers.big == "y"`, i))
	}
	const limit = `upper(event.data.big) == lower(event.data.big) && upper(event.body) != ""`
	add(limit + ` && event.type == "t1"`)
	add(`event.type == "t1" && ` + limit)
	guarded, plain := tableOf(matches, true), tableOf(matches, false)
	for name, body := range map[string]string{
		"too deep":  `{"a":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`,
		"large":     `{"a":"1","big":"` + big + `"}`,
		"no object": `7`,
		"nothing":   ``,
	} {
		types := []string{"t1", "other", "é", longType}
		if name == "large" {
			types = types[:2]
		}
		for _, typ := range types {
			ev := &event.Event{Source: "a", Type: typ, Body: []byte(body), Headers: event.Pairs{{Name: "big", Value: "y"}}}
			got, want := guarded.Route(event.NewView(ev)), plain.Route(event.NewView(ev))
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s, type %.10q: %d routes with guards, %d without", name, typ, len(got), len(want))
			}
			dead := slices.ContainsFunc(want, func(r event.Route) bool { return r.Dead != nil })
			if hostile := name == "too deep" || name == "large"; dead != hostile {
				t.Errorf("%s, type %.10q: dead is %v, so this shows nothing", name, typ, dead)
			}
		}
	}
}

// A guard says as much as the comparisons tell, and no more.
func TestGuard(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		`event.type == "A"`:                                                     "types [A]",
		`"A" == event.type`:                                                     "types [A]",
		`event.type != "A"`:                                                     "",
		`!(event.type == "A")`:                                                  "",
		`event.type == "A" || event.type == "B"`:                                "types [A B]",
		`event.type == "A" && event.type == "B"`:                                "types []",
		`event.type == "A" && event.data.x > 3`:                                 "types [A]",
		`event.data.x > 3 && event.type == "A"`:                                 "types [A]",
		`event.type == "A" || event.data.x > 3`:                                 "",
		`event.type == "A" && event.data.x == "1"`:                              `types [A] any of data."x"=1`,
		`event.type == "A" || event.data.x == "1"`:                              `any of type=A data."x"=1`,
		`event.headers.h == "1" && event.data.x == "1"`:                         "any of headers.h=1",
		`event.data.x == "1" && event.headers.h == "1"`:                         "any of headers.h=1",
		`event.data.x == 5 || event.data.y[0] == null`:                          `any of data."x"=` + "\x00" + `5 data."y"."0"[0]=` + "\x00null",
		`event.data.x == 0.5`:                                                   "",
		`event.data.x == event.data.y`:                                          "",
		`event.data.x == ["a"]`:                                                 "",
		`contains(["A", "B"], event.type) && event.data.x`:                      "types [A B]",
		`contains(["A", [1]], event.type)`:                                      "",
		`contains(event.data.list, event.type)`:                                 "",
		`upper(event.type) == "A" && event.type == "B"`:                         "", // what is first may reach a limit
		`event.type == "B" && upper(event.type) == "A"`:                         "types [B]",
		`event.data.x == "1" && upper(event.type) == "A"`:                       "",
		`event.data.flag`:                                                       "",
		`event.type == "A" ? true : false`:                                      "",
		`true && event.type == "A"`:                                             "types [A]",
		`false || event.type == "A"`:                                            "",
		`(event.data.a == "1" || event.data.b == "2") && (event.data.c == "3")`: `any of data."c"=3`,
	} {
		p, _, ok := compileMatch(src)
		if !ok {
			t.Errorf("%s does not compile", src)
			continue
		}
		g := p.Guard()
		var parts []string
		if g.Types != nil {
			parts = append(parts, fmt.Sprint("types ", g.Types))
		}
		if g.AnyOf != nil {
			part := "any of"
			for _, e := range g.AnyOf {
				part += " " + e.Path + "=" + e.Key
			}
			parts = append(parts, part)
		}
		if got := strings.Join(parts, " "); got != want {
			t.Errorf("%s: got %q, want %q", src, got, want)
		}
	}
}

// FuzzTable compares a table of one match several times, so that the index is
// used, with what plain HCL says of it.
func FuzzTable(f *testing.F) {
	for i := range 60 {
		s := &source{Rand: rand.New(rand.NewPCG(11, uint64(i)))}
		f.Add(s.match(3), s.typ(), s.event().Body)
	}
	f.Fuzz(func(t *testing.T, src, typ string, body []byte) {
		if farNumber.MatchString(src) || farNumber.Match(body) || len(src) > 4000 || len(body) > 1000 ||
			!utf8.ValidString(src) || strings.Count(src, "(")+strings.Count(src, "[")+strings.Count(src, "{") > 60 {
			t.Skip()
		}
		p, e, ok := compileMatch(src)
		if !ok {
			t.Skip()
		}
		other, _, _ := compileMatch(`event.type == "other"`)
		programs := []*expr.Program{p, p, other, p, p, p}
		otherExpr, _ := hclsyntax.ParseExpression([]byte(`event.type == "other"`), "f.hcl", hcl.InitialPos)
		exprs := []hclsyntax.Expression{e, e, otherExpr, e, e, e}
		compareTables(t, programs, exprs, []string{src, src, "other", src, src, src}, &event.Event{Source: "a", Type: typ, Body: body})
	})
}

// BenchmarkTable100 is what 100 pipelines with simple matches cost an event, the
// body read included: 99 do not match, one does.
func BenchmarkTable100(b *testing.B) {
	body, err := os.ReadFile("../../../testdata/samples/tencent_im/group_info_changed.json")
	if err != nil {
		b.Fatal(err)
	}
	ev := &event.Event{Source: "a", Type: "Group.CallbackAfterGroupInfoChanged", Body: body}
	mixed := []func(int) string{
		func(i int) string { return fmt.Sprintf(`event.type == "Group.Callback%d"`, i) },
		func(i int) string {
			return fmt.Sprintf(`event.type == "Group.CallbackAfterGroupInfoChanged" && event.data.GroupId == "@TGS#%d"`, i)
		},
		func(i int) string {
			return fmt.Sprintf(`event.type == "Group.Callback%d" && event.data.Type == "Public"`, i)
		},
		func(i int) string {
			return fmt.Sprintf(`event.data.Operator_Account == "u%d" || event.data.From_Account == "u%d"`, i, i)
		},
		func(i int) string {
			return fmt.Sprintf(`event.type == "Group.Callback%d" || event.type == "Group.Other%d"`, i, i)
		},
		func(i int) string {
			return fmt.Sprintf(`event.data.GroupId == "@TGS#%d" && (event.data.Type == "Public" || event.data.Type == "Private")`, i)
		},
	}
	for _, c := range []struct {
		name  string
		match func(int) string
	}{
		{"mixed", func(i int) string { return mixed[i%len(mixed)](i) }},
		{"type", mixed[0]},
		{"same type and data", mixed[1]},
		{"type and data", mixed[2]},
		{"data or data", mixed[3]},
		{"type or type", mixed[4]},
		{"data and or", mixed[5]},
		{"data number", func(i int) string { return fmt.Sprintf(`event.data.MsgSeq == %d`, i) }},
		{"data differs", func(i int) string { return fmt.Sprintf(`event.data.Field%d == "x"`, i) }},
		{"contains", func(i int) string { return fmt.Sprintf(`contains(["Group.A%d", "Group.B%d"], event.type)`, i, i) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			matches := []*expr.Program{compile(b, matchSrc)}
			for i := range 99 {
				matches = append(matches, compile(b, c.match(i)))
			}
			table := tableOf(matches, true)
			b.ReportAllocs()
			for b.Loop() {
				if routes := table.Route(event.NewView(ev)); len(routes) != 1 {
					b.Fatal(routes)
				}
			}
		})
	}
}
