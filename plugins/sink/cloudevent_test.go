package sink_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/sink"
)

func TestCloudEventLine(t *testing.T) {
	full := sink.Event{
		ID: "01JCXY0000000000000000000", Source: "chat", Type: "Group.CallbackAfterGroupInfoChanged", Subject: "@TGS#1",
		Time:        time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.FixedZone("CST", 8*3600)),
		Accepted:    time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC),
		ContentType: "application/json",
	}
	const head = `{"specversion":"1.0","id":"01JCXY0000000000000000000","source":"/chat","type":"Group.CallbackAfterGroupInfoChanged","subject":"@TGS#1","time":"2026-03-03T21:06:07.089Z","datacontenttype":"application/json",`
	tests := map[string]struct {
		ev         sink.Event
		body, want string
	}{
		"compacted, keys and numbers untouched": {
			full,
			"{\n \"b\": 1,\r\n\t\"a\" : 1e400, \"b\":9007199254740993 ,\"c\": 1.0, \"d\":-0 }", head + `"data":{"b":1,"a":1e400,"b":9007199254740993,"c":1.0,"d":-0}}`,
		},
		"text untouched":         {full, `["<a>&\u00e9é\/ 	"]`[:14] + `"]`, head + `"data":["<a>&\u00e9é"]}`},
		"line separators stay":   {full, "\"\u2028\"", head + "\"data\":\"\u2028\"}"},
		"lone surrogate escape":  {full, `"\ud800"`, head + `"data":"\ud800"}`},
		"scalar":                 {full, " null\n", head + `"data":null}`},
		"empty":                  {full, "", head + `"data_base64":""}`},
		"not JSON":               {full, `{"a":1`, head + `"data_base64":"eyJhIjox"}`},
		"two values":             {full, `1 2`, head + `"data_base64":"MSAy"}`},
		"NaN":                    {full, `NaN`, head + `"data_base64":"TmFO"}`},
		"byte order mark":        {full, "\ufeff1", head + `"data_base64":"77u/MQ=="}`},
		"JSON but not UTF-8":     {full, "\"\xff\"", head + `"data_base64":"Iv8i"}`},
		"control byte in string": {full, "\"\x01\"", head + `"data_base64":"IgEi"}`},
		"too deep":               {full, strings.Repeat("[", 20000), head + `"data_base64":"` + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("["), 20000)) + `"}`},
		"least": {
			sink.Event{ID: "i", Source: "s", Type: "t"},
			"1",
			`{"specversion":"1.0","id":"i","source":"/s","type":"t","data":1}`,
		},
		"attributes escaped": {
			sink.Event{ID: "i", Source: "s", Type: "a\"\\\n\r\t\x00\x7f<é\u2028\u2029\xff😀", Subject: "\xc3"},
			"1",
			`{"specversion":"1.0","id":"i","source":"/s","type":"a\"\\\n\r\t\u0000\u007f<é\u2028\u2029\ufffd😀","subject":"\ufffd","data":1}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ev := test.ev
			ev.Body = []byte(test.body)
			got := string(ev.AppendCloudEvent([]byte("x")))
			if got != "x"+test.want {
				t.Errorf("got  %s\nwant x%s", got, test.want)
			}
			if !json.Valid([]byte(got[1:])) {
				t.Error("it is not valid JSON")
			}
		})
	}
}

func FuzzCloudEventLine(f *testing.F) {
	for _, seed := range []string{``, `{}`, " { \"a\" : [1, 2.50, 1e400], \"a\":9007199254740993 } ", `"\ud800"`, "\"\xff\"", "\"\n\"", `tru`, "[\"a\tb\"]", "[\"\u2028\"]", `{"a":1}{"b":2}`} {
		f.Add([]byte(seed), "type", "subject")
	}
	f.Add([]byte("1"), "a\"b\\\n\xff\u2028", "\x00\x1f")
	f.Fuzz(func(t *testing.T, body []byte, typ, subject string) {
		original := bytes.Clone(body)
		ev := sink.Event{ID: "i", Source: "s", Type: typ, Subject: subject, Body: body}
		line := ev.AppendCloudEvent(nil)
		if !bytes.Equal(body, original) {
			t.Fatal("the body was changed")
		}
		if bytes.ContainsAny(line, "\n\r") || !utf8.Valid(line) {
			t.Fatalf("not one line of UTF-8: %q", line)
		}
		var got struct {
			SpecVersion, ID, Source, Type, Subject string
			Data                                   json.RawMessage
			Base64                                 *[]byte `json:"data_base64"`
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if got.Type != strings.ToValidUTF8(typ, "\ufffd") && utf8.ValidString(typ) || utf8.ValidString(subject) && got.Subject != subject {
			t.Errorf("type %q, subject %q became %q, %q", typ, subject, got.Type, got.Subject)
		}
		var compact bytes.Buffer
		if json.Compact(&compact, body) == nil && utf8.Valid(body) {
			if !bytes.Equal(got.Data, compact.Bytes()) || got.Base64 != nil {
				t.Errorf("data is %q for %q", got.Data, body)
			}
			return
		}
		if got.Data != nil || got.Base64 == nil || !bytes.Equal(*got.Base64, body) {
			t.Errorf("data_base64 of %q is %q, data %q", body, got.Base64, got.Data)
		}
	})
}

func BenchmarkCloudEventLine(b *testing.B) {
	ev := sink.Event{
		ID: "01JCXY0000000000000000000", Source: "chat", Type: "Group.CallbackAfterGroupInfoChanged", Subject: "@TGS#1",
		Time: time.Unix(1772600767, 89e6), ContentType: "application/json",
		Body: []byte(`{"CallbackCommand":"Group.CallbackAfterGroupInfoChanged","GroupId":"@TGS#2J4SZEAEL","Type":"Public","Operator_Account":"leckie","Name":"NewName","Introduction":"` + strings.Repeat("x", 150) + `","EventTime":1670574414123}`),
	}
	var line []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(ev.Body)))
	for b.Loop() {
		line = ev.AppendCloudEvent(line[:0])
	}
}
