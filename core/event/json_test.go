package event_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/callbackd/callbackd/core/event"
)

// plain turns a value into what encoding/json makes of it, with json.Number.
func plain(v event.JSONValue) any {
	switch v.Kind() {
	case event.JSONBool:
		return v.Bool()
	case event.JSONNumber:
		return json.Number(v.Raw())
	case event.JSONText:
		return v.Text()
	case event.JSONList:
		list := []any{}
		for e := range v.Elements() {
			list = append(list, plain(e))
		}
		return list
	case event.JSONObject:
		object := map[string]any{}
		for name, m := range v.Members() {
			object[name] = plain(m)
		}
		return object
	}
	return nil
}

// reference reads text with encoding/json. ok is false where it is not JSON.
func reference(text []byte) (v any, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if !utf8.Valid(text) || dec.Decode(&v) != nil {
		return nil, false
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, false
	}
	return v, true
}

// rawTree reads text with encoding/json, last name wins after normalising: the
// decoder of the standard library knows nothing of normal forms, and merges an
// object given twice under a name into one only for typed targets.
func rawTree(text []byte) any {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var read func() any
	read = func() any {
		tok, err := dec.Token()
		if err != nil {
			panic(err)
		}
		switch tok := tok.(type) {
		case string:
			return norm.NFC.String(tok)
		case json.Delim:
			if tok == '[' {
				list := []any{}
				for dec.More() {
					list = append(list, read())
				}
				_, _ = dec.Token()
				return list
			}
			object := map[string]any{}
			for dec.More() {
				name := read().(string)
				object[name] = read()
			}
			_, _ = dec.Token()
			return object
		}
		return tok
	}
	return read()
}

// checkMembers looks up every name and element on its own.
func checkMembers(t *testing.T, v event.JSONValue, want any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		for name := range want {
			m, ok := v.Member(name)
			if !ok || !reflect.DeepEqual(plain(m), want[name]) {
				t.Fatalf("member %q: got %v (%v), want %v", name, plain(m), ok, want[name])
			}
			checkMembers(t, m, want[name])
		}
		if _, ok := v.Member("no such name \x00"); ok {
			t.Fatal("found a member that does not exist")
		}
	case []any:
		for i := range want {
			e, ok := v.Element(int64(i))
			if !ok {
				t.Fatalf("element %d is missing", i)
			}
			checkMembers(t, e, want[i])
		}
		if _, ok := v.Element(int64(len(want))); ok {
			t.Fatal("found an element past the end")
		}
	case string:
		if !v.TextIs(want) || v.TextIs(want+"x") {
			t.Fatalf("TextIs is wrong about %q", want)
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":1,"b":[true,false,null,"x"],"c":{"d":"é\n\u00e9\ud83d\ude00\ud800"}}`,
		`{"a":1,"a":{"b":2},"a":[9007199254740993]}`, ` [ ] `, `{}`, ``, `nul`, `[1,]`, `[,1]`, `{"a":}`, `{"a" 1}`,
		`[1 2]`, `{"a":1,}`, `{,}`, `-0`, `01`, `1.`, `1e`, `-`, `1e+5`, `.5`, `"\u12"`, `"\x"`, "\"\x01\"", `"`, `[[[]]`,
		`[}`, `{]`, `1 2`, "\ufeff1", "\"\xff\"", `{"a\u0301":1,"á":2}`, `{"e\u0301":"e` + "\u0301" + `"}`, `[]]`, `{"":""}`, "\t1\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := event.ParseJSON(text)
		if errors.Is(err, event.ErrJSONTooLarge) {
			return
		}
		if _, ok := reference(text); ok != (err == nil) {
			t.Fatalf("%q: got %v, encoding/json takes it: %v", text, err, ok)
		}
		if err != nil {
			return
		}
		want := rawTree(text)
		if got := plain(doc.Root()); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q:\n got %#v\nwant %#v", text, got, want)
		}
		checkMembers(t, doc.Root(), want)
		if !bytes.Equal(doc.Root().Raw(), bytes.Trim(text, " \t\r\n")) {
			t.Fatalf("%q: raw is %q", text, doc.Root().Raw())
		}
	})
}

func TestJSONBounds(t *testing.T) {
	t.Parallel()
	nested := func(n int) []byte {
		return []byte(strings.Repeat(`[`, n) + strings.Repeat(`]`, n))
	}
	if _, err := event.ParseJSON(nested(event.MaxJSONDepth)); err != nil {
		t.Errorf("at the bound: %v", err)
	}
	if _, err := event.ParseJSON(nested(event.MaxJSONDepth + 1)); !errors.Is(err, event.ErrJSONTooLarge) {
		t.Errorf("one deeper: got %v, want ErrJSONTooLarge", err)
	}
	if _, err := event.ParseJSON(bytes.Repeat([]byte(`[`), 8<<20)); !errors.Is(err, event.ErrJSONTooLarge) {
		t.Errorf("8 MiB of brackets: got %v, want ErrJSONTooLarge", err)
	}
	many := []byte("[" + strings.Repeat("1,", event.MaxJSONValues) + "1]")
	if _, err := event.ParseJSON(many); !errors.Is(err, event.ErrJSONTooLarge) {
		t.Errorf("too many values: got %v, want ErrJSONTooLarge", err)
	}
}

func TestJSONWideObject(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"twice":1`)
	for i := range 500 {
		fmt.Fprintf(&b, `,"k%d":%d`, i, i)
	}
	b.WriteString(`,"twice":2}`)
	doc, err := event.ParseJSON([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // walked first, indexed then
		for name, want := range map[string]string{"k0": "0", "k499": "499", "twice": "2"} {
			if v, ok := doc.Root().Member(name); !ok || string(v.Raw()) != want {
				t.Errorf("%s: got %s, want %s", name, v.Raw(), want)
			}
		}
		if _, ok := doc.Root().Member("k500"); ok {
			t.Error("found k500")
		}
	}
}

func TestView(t *testing.T) {
	t.Parallel()
	v := event.NewView(&event.Event{Body: []byte("caf\u0065\u0301")})
	if text, ok := v.Body(); !ok || text != "caf\u00e9" {
		t.Errorf("body: got %q, %v", text, ok)
	}
	if data, err := v.Data(); err != nil || data.Kind() != event.JSONNull || string(data.Raw()) != "null" {
		t.Errorf("data of text: got %s, %v", data.Raw(), err)
	}
	v = event.NewView(&event.Event{Body: []byte("\xff")})
	if _, ok := v.Body(); ok {
		t.Error("a body that is not UTF-8 has text")
	}
	v = event.NewView(&event.Event{Body: bytes.Repeat([]byte("["), event.MaxJSONDepth+1)})
	for range 2 {
		if _, err := v.Data(); !errors.Is(err, event.ErrJSONTooLarge) {
			t.Errorf("got %v, want ErrJSONTooLarge", err)
		}
	}
}

func BenchmarkJSON(b *testing.B) {
	body := []byte(`{"CallbackCommand":"Group.CallbackAfterGroupInfoChanged","GroupId":"@TGS#2J4SZEAEL","Type":"Public",` +
		`"Operator_Account":"leckie","Name":"new name","Notification":"a notification","EventTime":1670574414123,` +
		`"Members":[{"Member_Account":"jared"},{"Member_Account":"tommy"}],"Introduction":"some introduction of a group"}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.ParseJSON(body); err != nil {
			b.Fatal(err)
		}
	}
}
