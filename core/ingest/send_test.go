package ingest

import (
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"
)

// What NewRequest makes, the source it was made for accepts.
func TestASampleIsAcceptedByItsSource(t *testing.T) {
	tencent := &Tencent{SDKAppIDs: []uint64{1400000000}, Tokens: []string{"new", "old"}, Window: time.Minute}
	hmac := func(algorithm, encoding string) *HMAC {
		return &HMAC{Header: "X-Sig", Prefix: "v1=", Algorithm: algorithm, Encoding: encoding, Secrets: []string{"s1", "s2"}}
	}
	body := `{"CallbackCommand":"Group.CallbackAfterGroupInfoChanged","GroupId":"g"}`
	for _, c := range []struct {
		name     string
		settings SourceSettings
		body     string
		query    url.Values
		header   http.Header
		wantType string
		refused  int
	}{
		{name: "tencent, signed", settings: SourceSettings{Type: "tencent_im", Tencent: tencent}, body: body, wantType: "Group.CallbackAfterGroupInfoChanged"},
		{name: "tencent, another command", settings: SourceSettings{Type: "tencent_im", Tencent: tencent}, body: body, query: url.Values{"CallbackCommand": {"X.Y"}}, wantType: "X.Y"},
		{name: "tencent, a wrong app", settings: SourceSettings{Type: "tencent_im", Tencent: tencent}, body: body, query: url.Values{"SdkAppid": {"1"}}, refused: http.StatusForbidden},
		{name: "hmac sha256 hex", settings: SourceSettings{Type: "http", HMAC: hmac("sha256", "hex")}, body: "any \xff body", wantType: "src"},
		{name: "hmac sha512 base64", settings: SourceSettings{Type: "http", HMAC: hmac("sha512", "base64")}, wantType: "src"},
		{name: "hmac sha1", settings: SourceSettings{Type: "http", HMAC: hmac("sha1", "")}, wantType: "src"},
		{name: "hmac, a wrong one", settings: SourceSettings{Type: "http", HMAC: hmac("", "")}, header: http.Header{"x-sig": {"v1=00"}}, refused: http.StatusUnauthorized},
		{name: "not verified", settings: SourceSettings{Type: "http"}, body: "x", wantType: "src"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.settings.Name, c.settings.Path, c.settings.MaxBody = "src", "/a b/ü", 1<<20
			source, err := NewSource(c.settings, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			r, err := NewRequest(t.Context(), c.settings, "http://127.0.0.1:1", Sample{Body: []byte(c.body), Query: c.query, Header: c.header, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if r.URL.Path != c.settings.Path {
				t.Errorf("path %q", r.URL.Path)
			}
			ev, _, refusal := source.Accept(r, netip.Addr{})
			switch {
			case c.refused != 0:
				if refusal == nil || refusal.Code != c.refused {
					t.Errorf("refusal %+v, want %d", refusal, c.refused)
				}
			case refusal != nil:
				t.Errorf("refused: %+v", refusal)
			case ev.Type != c.wantType || string(ev.Body) != c.body:
				t.Errorf("event %+v", ev)
			}
		})
	}
}
