package ingest

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestSender(t *testing.T) {
	trusted := networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	const proxy = "10.0.0.1:4711"
	tests := []struct {
		name, peer     string
		xff, forwarded []string
		want           string // empty: unknown
	}{
		{"direct", "192.0.2.1:1", nil, nil, "192.0.2.1"},
		{"a stranger's headers", "192.0.2.1:1", []string{"203.0.113.9"}, []string{"for=203.0.113.9"}, "192.0.2.1"},
		{"the proxy itself", proxy, nil, nil, "10.0.0.1"},
		{"one hop", proxy, []string{"203.0.113.7"}, nil, "203.0.113.7"},
		{"invented hop before", proxy, []string{"1.1.1.1, 203.0.113.7"}, nil, "203.0.113.7"},
		{"two proxies", proxy, []string{"203.0.113.7, 10.9.9.9"}, nil, "203.0.113.7"},
		{"two lines", proxy, []string{"1.1.1.1", "203.0.113.7", "10.9.9.9"}, nil, "203.0.113.7"},
		{"only proxies", proxy, []string{"10.3.3.3, 10.9.9.9"}, nil, "10.3.3.3"},
		{"empty elements", proxy, []string{" , 203.0.113.7,,"}, nil, "203.0.113.7"},
		{"empty header", proxy, []string{""}, nil, "10.0.0.1"},
		{"port", proxy, []string{"203.0.113.7:55"}, nil, "203.0.113.7"},
		{"IPv6", proxy, []string{"2001:db8::1"}, nil, "2001:db8::1"},
		{"brackets", proxy, []string{"[2001:db8::1]"}, nil, "2001:db8::1"},
		{"brackets and port", proxy, []string{"[2001:db8::1]:80"}, nil, "2001:db8::1"},
		{"mapped", proxy, []string{"::ffff:203.0.113.7"}, nil, "203.0.113.7"},
		{"nonsense", proxy, []string{"203.0.113.7, nonsense"}, nil, ""},
		{"nonsense behind the sender", proxy, []string{"nonsense, 203.0.113.7"}, nil, "203.0.113.7"},
		{"forwarded", proxy, nil, []string{`for=203.0.113.7;proto=https;by=10.0.0.1`}, "203.0.113.7"},
		{"forwarded capitals", proxy, nil, []string{`Proto=https; For="203.0.113.7:80"`}, "203.0.113.7"},
		{"forwarded IPv6", proxy, nil, []string{`for="[2001:db8:cafe::17]:4711"`}, "2001:db8:cafe::17"},
		{"forwarded list", proxy, nil, []string{`for=1.1.1.1, for=203.0.113.7;by="a,b;for=2.2.2.2"`, `for=10.2.2.2`}, "203.0.113.7"},
		{"forwarded unknown", proxy, nil, []string{`for=203.0.113.7, for=unknown`}, ""},
		{"forwarded hidden", proxy, nil, []string{`for=_gazonk`}, ""},
		{"forwarded without for", proxy, nil, []string{`for=203.0.113.7, proto=http`}, ""},
		{"open quote", proxy, nil, []string{`for=9.9.9.9;x="`, `for="[2001:db8::1]"`}, ""},
		{"open quote, unquoted proxy", proxy, nil, []string{`for=9.9.9.9, for="`, `for=203.0.113.7`}, ""},
		{"escaped quote", proxy, nil, []string{`for=9.9.9.9;x="\"`, `for="[2001:db8::1]"`}, ""},
		{"both agree", proxy, []string{"203.0.113.7"}, []string{"for=203.0.113.7"}, "203.0.113.7"},
		{"one invented", proxy, []string{"203.0.113.7"}, []string{"for=9.9.9.9"}, ""},
		{"peer is no address", "@", []string{"203.0.113.7"}, nil, ""},
		{"mapped proxy", "[::ffff:10.0.0.1]:80", []string{"203.0.113.7"}, nil, "203.0.113.7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			if tt.xff != nil {
				h["X-Forwarded-For"] = tt.xff
			}
			if tt.forwarded != nil {
				h["Forwarded"] = tt.forwarded
			}
			got := ""
			if a := trusted.sender(&callback{peer: peerAddr(tt.peer), header: headerOf(h)}); a.IsValid() {
				got = a.String()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzSender(f *testing.F) {
	trusted := networks{netip.MustParsePrefix("10.0.0.0/8")}
	f.Add("203.0.113.7, 10.1.1.1", `for="[2001:db8::1]";by=x`)
	f.Add("", `for="`)
	f.Fuzz(func(t *testing.T, xff, forwarded string) {
		// A proxy appends the address that it sees: whatever was there before, that
		// one counts, or none.
		for _, seen := range []string{`for=203.0.113.7`, `for="[2001:db8::1]:80"`} {
			c := &callback{peer: peerAddr("10.0.0.1:1"), header: header{{"forwarded", forwarded}, {"Forwarded", seen}}}
			if a := trusted.sender(c); a.IsValid() && a.String() != "203.0.113.7" && a.String() != "2001:db8::1" {
				t.Fatalf("%q makes the sender %s", forwarded, a)
			}
		}
		c := &callback{peer: peerAddr("10.0.0.1:1"), header: header{{"X-Forwarded-For", xff}, {"x-forwarded-for", "203.0.113.7"}}}
		if a := trusted.sender(c); a.String() != "203.0.113.7" {
			t.Fatalf("%q makes the sender %s", xff, a)
		}
	})
}
