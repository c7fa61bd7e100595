package expr_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/plugins/schema"
)

// verdict is what came of comparing one expression on one event.
type verdict int

const (
	skipped verdict = iota
	agreedValue
	agreedError
)

// compare holds the compiled expression against the reference. All three ways
// to a value are asked.
func compareWithReference(t *testing.T, src string, ev *event.Event) verdict {
	t.Helper()
	e, diags := hclsyntax.ParseExpression([]byte(src), "f.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		return skipped
	}
	p, diags := expr.Compile(e, expr.EventScope, nil)
	if diags.HasErrors() {
		return skipped
	}
	want, wantErr := newReference(ev).eval(e)
	if errors.Is(wantErr, errUnsupported) {
		return skipped
	}
	v, err := p.Value(event.NewView(ev))
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("%s\nbody %q\n got error %v\nwant error %v", src, ev.Body, err, wantErr)
	}
	if err != nil {
		return agreedError
	}
	wantJSON, err := ctyjson.Marshal(want, want.Type())
	if err != nil {
		t.Fatal(err)
	}
	got := schema.JSON("null")
	if v != nil {
		got = v.(schema.JSON)
	}
	if !sameJSON(t, got, wantJSON) {
		t.Fatalf("%s\nbody %q\n got %s\nwant %s", src, ev.Body, got, wantJSON)
	}
	match, err := p.Match(event.NewView(ev))
	switch {
	case want.IsNull():
		if match || err != nil {
			t.Fatalf("%s\nbody %q\n null matches: %v, %v", src, ev.Body, match, err)
		}
	case want.Type() == cty.Bool:
		if match != want.True() || err != nil {
			t.Fatalf("%s\nbody %q\n got match %v, %v, want %v", src, ev.Body, match, err, want.True())
		}
	case err == nil:
		t.Fatalf("%s\nbody %q\n a match that is %s is no error", src, ev.Body, wantJSON)
	}
	text, ok, err := p.Text(event.NewView(ev))
	wantText, wantErr := join([]cty.Value{want})
	if (err != nil) != (wantErr != nil) || err == nil && (ok == want.IsNull() || text != wantText.AsString()) {
		t.Fatalf("%s\nbody %q\n got text %q, %v, %v, want %#v, %v", src, ev.Body, text, ok, err, wantText, wantErr)
	}
	return agreedValue
}

// sameJSON compares, numbers as they are written.
func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	read := func(text []byte) (v any) {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return v
	}
	return reflect.DeepEqual(read(a), read(b))
}

// source writes random expressions.
type source struct {
	*rand.Rand
	vars []string
}

func (s *source) pick(of ...string) string { return of[s.IntN(len(of))] }

func (s *source) number() string {
	return s.pick("0", "1", "2", "-3", "5", "0.5", "1e2", "9007199254740992", "9007199254740993", "9223372036854775807", "18446744073709551616", "0.1")
}

func (s *source) str() string {
	return s.pick(`""`, `"a"`, `"b"`, `"Public"`, `"5"`, `"true"`, `"é"`, "\"e\u0301\"", `"x y"`, `"<b>"`, `"0"`)
}

func (s *source) path() string {
	root := "event.data"
	if len(s.vars) > 0 && s.IntN(2) == 0 {
		root = s.vars[s.IntN(len(s.vars))]
	}
	for range s.IntN(4) {
		root += s.pick(".a", ".b", ".n", ".l", ".o", ".missing", `["t"]`, "[0]", "[1]", `["1"]`)
	}
	return root
}

// expression writes one of at most the given depth.
func (s *source) expression(depth int) string {
	if depth == 0 {
		switch s.IntN(6) {
		case 0:
			return s.number()
		case 1:
			return s.str()
		case 2:
			return s.pick("true", "false", "null", "event.type", "event.subject", "event.headers.h", "event.time", "event.query")
		default:
			return s.path()
		}
	}
	sub := func() string { return s.expression(depth - 1 - s.IntN(depth)) }
	switch s.IntN(17) {
	case 0, 1:
		return "(" + sub() + s.pick(" == ", " != ") + sub() + ")"
	case 2:
		return "(" + sub() + s.pick(" < ", " <= ", " > ", " >= ") + sub() + ")"
	case 3, 4:
		return "(" + sub() + s.pick(" && ", " || ") + sub() + ")"
	case 5:
		return "(" + sub() + s.pick(" + ", " - ", " * ", " / ", " % ") + sub() + ")"
	case 6:
		return s.pick("!", "-") + "(" + sub() + ")"
	case 7:
		return "(" + sub() + " ? " + sub() + " : " + sub() + ")"
	case 8:
		return "\"" + s.pick("", "x ", "é") + "${" + sub() + "}" + s.pick("", "\u0301", " y ${"+sub()+"}") + "\""
	case 9:
		return "[" + sub() + ", " + sub() + "]"
	case 10:
		return "{a = " + sub() + ", (" + sub() + ") = " + sub() + "}"
	case 11, 12:
		return s.loop(depth)
	case 13:
		return "(" + sub() + ")" + s.pick("[*]", "[*].a", ".*.n", ".a", `["b"]`, "[0]", "["+sub()+"]")
	case 14:
		return "\"%{ if " + sub() + " ~}" + s.pick("t", " ${"+sub()+"} ") + "%{ else }f%{ endif }\""
	default:
		return s.call(sub)
	}
}

func (s *source) loop(depth int) string {
	over := s.expression(depth - 1)
	if s.IntN(2) == 0 {
		over = s.pick("event.data.l", "event.data.o", "event.data", "event.data.l[*]")
	}
	key, val := fmt.Sprintf("k%d", len(s.vars)), fmt.Sprintf("v%d", len(s.vars)+1)
	outer := s.vars
	s.vars = append(append([]string{}, outer...), key, val)
	defer func() { s.vars = outer }()
	body, cond := s.expression(depth-1), ""
	if s.IntN(2) == 0 {
		cond = " if " + s.expression(depth-1)
	}
	switch s.IntN(4) {
	case 0:
		return "[for " + val + " in " + over + " : " + strings.ReplaceAll(body, key, val) + strings.ReplaceAll(cond, key, val) + "]"
	case 1:
		return "[for " + key + ", " + val + " in " + over + " : " + body + cond + "]"
	case 2:
		return "{for " + key + ", " + val + " in " + over + " : " + s.pick(key, val, s.expression(depth-1)) + " => " + body + s.pick("", "...") + cond + "}"
	}
	return "\"%{ for " + key + ", " + val + " in " + over + " }${" + body + "};%{ endfor }\""
}

func (s *source) call(sub func() string) string {
	switch s.IntN(16) {
	case 0:
		return s.pick("upper", "lower", "title", "trimspace", "chomp", "length", "keys", "values", "flatten", "reverse") + "(" + sub() + ")"
	case 1:
		return "length(" + s.pick("event.data.l", "event.data.t", "event.body", sub()) + ")"
	case 2:
		return s.pick("abs", "ceil", "floor", "jsonencode") + "(" + sub() + ")"
	case 3:
		return s.pick("min", "max", "concat", "merge", "coalesce", "try") + "(" + sub() + ", " + sub() + ")"
	case 4:
		return "can(" + sub() + ")"
	case 5:
		return "join(" + s.str() + ", " + sub() + ")"
	case 6:
		return "split(" + s.str() + ", " + sub() + ")"
	case 7:
		return "replace(" + sub() + ", " + s.str() + ", " + sub() + ")"
	case 8:
		return "substr(" + sub() + ", " + s.pick("0", "1", "-1", "3") + ", " + s.pick("-1", "0", "1", "2") + ")"
	case 9:
		return "format(" + s.pick(`"%s"`, `"%v %v"`, `"%d"`, `"%5.1f"`, `"%q"`, `"%[2]v"`) + ", " + sub() + ", " + sub() + ")"
	case 10:
		return s.pick("regex", "regexall") + "(" + s.pick(`"[a-c]+"`, `"(.)(x)?"`, `"(?P<a>.)(?P<b>5)?"`, `""`) + ", " + sub() + ")"
	case 11:
		return "regexreplace(" + sub() + ", " + s.pick(`"[a-c]"`, `"(.)"`, `""`) + ", " + s.pick(`"<$1>"`, `"é"`, `"$$"`) + ")"
	case 12:
		return s.pick("trim", "trimprefix", "trimsuffix") + "(" + sub() + ", " + s.str() + ")"
	}
	return "jsonencode(" + sub() + ")"
}

// json writes a random JSON value.
func (s *source) json(depth int) string {
	switch n := s.IntN(10); {
	case depth > 0 && n < 4:
		var b strings.Builder
		b.WriteByte('{')
		for i := range s.IntN(6) {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"%s": %s`, s.pick("a", "b", "n", "t", "l", "o", "e\u0301", `\u00e9`, "1"), s.json(depth-1))
		}
		return b.String() + "}"
	case depth > 0 && n < 6:
		elems := make([]string, s.IntN(4))
		for i := range elems {
			elems[i] = s.json(depth - 1)
		}
		return "[" + strings.Join(elems, ",") + "]"
	case n < 8:
		return s.pick(s.number(), "-0", "0.0", "1.50", "1E2", "-1e-3", "123456789012345678901234567890")
	}
	return s.pick("null", "true", "false", `"a"`, `"5"`, `""`, `"Public"`, "\"e\u0301\"", `"\u00e9\n"`, `"a,b"`, `"\ud800"`, `"true"`, `"<b>"`)
}

func (s *source) event() *event.Event {
	body := fmt.Sprintf(`{"a": %s, "b": %s, "n": %s, "t": %s, "l": [%s, %s], "o": %s, "a": %s}`,
		s.json(2), s.json(1), s.number(), s.str(), s.json(2), s.json(1), s.json(3), s.json(2))
	switch s.IntN(12) {
	case 0:
		body = s.json(3)
	case 1:
		body = s.pick("", "not JSON", "\xff", "{}")
	}
	ev := &event.Event{Type: s.pick("", "a", "Public"), Body: []byte(body)}
	if s.IntN(2) == 0 {
		ev.Subject, ev.Time = "é", time.UnixMilli(1670574414123)
		ev.Headers = event.Pairs{{Name: "h", Value: s.pick("a", "e\u0301", "\xff")}}
	}
	return ev
}

// TestDifferential compares random expressions on random events.
func TestDifferential(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	n := 2_000
	if testing.Short() {
		n = 500
	}
	verdicts := map[verdict]int{}
	for i := range n {
		s := &source{Rand: rand.New(rand.NewPCG(seed, uint64(i)))}
		src := s.expression(1 + s.IntN(4))
		for range 3 {
			ev := s.event()
			verdicts[compareWithReference(t, src, ev)]++
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("seed %d: %d values and %d errors agreed, %d skipped", seed, verdicts[agreedValue], verdicts[agreedError], verdicts[skipped])
	if verdicts[agreedValue] < n || verdicts[agreedError] == 0 {
		t.Errorf("too few comparisons: %v", verdicts)
	}
}

// farNumber finds numbers that are out of range for one of both.
var farNumber = regexp.MustCompile(`[eE][+-]?[0-9]{3}`)

// FuzzExpression compares any expression on any body, and shows that nothing
// panics.
func FuzzExpression(f *testing.F) {
	for i := range 60 {
		s := &source{Rand: rand.New(rand.NewPCG(7, uint64(i)))}
		f.Add(s.expression(3), s.event().Body)
	}
	f.Fuzz(func(t *testing.T, src string, body []byte) {
		if farNumber.MatchString(src) || farNumber.Match(body) {
			t.Skip()
		}
		if !utf8.ValidString(src) || len(src) > 500 || len(body) > 1000 || strings.Count(src, "(")+strings.Count(src, "[")+strings.Count(src, "{") > 60 {
			t.Skip()
		}
		compareWithReference(t, src, &event.Event{Type: "a", Body: body})
	})
}
