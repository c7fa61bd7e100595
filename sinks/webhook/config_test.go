package main

import (
	"net/url"
	"strings"
	"testing"

	"github.com/callbackd/callbackd/plugins/sink"
)

func TestURL(t *testing.T) {
	tests := []struct {
		url   string
		allow bool
		want  string // the beginning of the error, empty: right
	}{
		{url: "https://crm.example.com/callbacks"},
		{url: "http://crm.example.com"},
		{url: "HTTP://crm.example.com:8080/?a=b"},
		{url: "http://localhost:3000/x"},
		{url: "http://127.0.0.1/x"},
		{url: "http://[::1]:8080/x"},
		{url: "http://10.0.0.5/x"},
		{url: "http://my_service:8080/x"},
		{url: "http://münchen.example/x"},
		{url: "http://crm.example.com./x"},
		{url: "https://user:topsecret@crm.example.com/x"},
		{url: "https://user@crm.example.com/x"},
		{url: "http://169.254.169.254/latest", allow: true},
		{url: "http://169.254.169.254/latest", want: "url: url is a link-local or cloud metadata address"},
		{url: "http://169.254.169.254./latest", want: "url: url is a link-local or cloud metadata address"},
		{url: "http://[::ffff:169.254.169.254]/latest", want: "url: url is a link-local or cloud metadata address"},
		{url: "http://[fe80::1%25eth0]:80/", want: "url: url is a link-local or cloud metadata address"},
		{url: "http://[fd00:ec2::254]/", want: "url: url is a link-local or cloud metadata address"},
		{url: "http://2852039166/topsecret", want: "url: the host name of url is not valid"},
		{url: "http://0xa9fea9fe/topsecret", want: "url: the host name of url is not valid"},
		{url: "http://0251.0376.0251.0376/topsecret", want: "url: the host name of url is not valid"},
		{url: "http://169.254.43518/topsecret", want: "url: the host name of url is not valid"},
		{url: "", want: "url: url must begin with http:// or https://"},
		{url: "crm.example.com/topsecret", want: "url: url must begin with http:// or https://"},
		{url: "ftp://crm.example.com/topsecret", want: "url: url must begin with http:// or https://"},
		{url: "file:///etc/topsecret", want: "url: url must begin with http:// or https://"},
		{url: "https:///topsecret", want: "url: url has no host name"},
		{url: "https:topsecret", want: "url: url has no host name"},
		{url: "https://:8080/topsecret", want: "url: url has no host name"},
		{url: "https://user:topsecret@/x", want: "url: url has no host name"},
		{url: "https://crm.example.com/#topsecret", want: "url: url must not have a fragment"},
		{url: "https://crm.example.com/#", want: "url: url must not have a fragment"},
		{url: "https://crm.example.com:0/topsecret", want: "url: the port of url is not between 1 and 65535"},
		{url: "https://crm.example.com:65536/topsecret", want: "url: the port of url is not between 1 and 65535"},
		{url: "https://crm.example.com:/topsecret", want: "url: the port of url is missing"},
		{url: "https://crm.example.com:topsecret/", want: "url: url is not a valid URL"},
		{url: "https://user:top/secret@crm.example.com/topsecret", want: "url: url is not a valid URL"},
		{url: "https://crm.example.com/topsecret\n", want: "url: url is not a valid URL"},
		{url: "https://crm.exa mple.com/topsecret", want: "url: url is not a valid URL"},
		{url: "https://crm.example.com/%zz?topsecret", want: "url: url is not a valid URL"},
		{url: "https://" + strings.Repeat("a", 300) + ".topsecret/", want: "url: the host name of url is not valid"},
	}
	for _, test := range tests {
		t.Run(test.url, func(t *testing.T) {
			err := withDefaults(Config{URL: sink.NewSecret(test.url), AllowLinkLocal: test.allow}).Validate()
			switch {
			case test.want == "" && err != nil:
				t.Errorf("got %v", err)
			case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)):
				t.Errorf("got %v, want %s", err, test.want)
			case err != nil && strings.Contains(err.Error(), "topsecret"):
				t.Errorf("the error quotes the URL: %v", err)
			}
		})
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{"https://user:pass@crm.example.com:8080/a%2Fb?x=1", "http://[fe80::1%25eth0]/", "http://0xa9fea9fe/", "https://münchen.example/", "http://169.254.169.254.", "http://a#"} {
		f.Add(seed)
	}
	guard := newAddressGuard()
	f.Fuzz(func(t *testing.T, raw string) {
		u, _, err := parseTarget(raw, false)
		if err != nil {
			return
		}
		if u.User != nil || u.Fragment != "" || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
			t.Fatalf("%q became %#v", raw, u)
		}
		if addr, ok := literal(u); ok && guard.refuses(addr) {
			t.Fatalf("%q is let through", raw)
		}
		again, err := url.Parse(u.String())
		if err != nil || again.Host != u.Host || again.RequestURI() != u.RequestURI() {
			t.Fatalf("%q became %q, which is %v, %v", raw, u, again, err)
		}
	})
}

func TestSettingsThatAreWrong(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		want   []string // beginnings of the errors, in order
	}{
		{name: "none"},
		{
			name:   "secrets",
			config: Config{SigningSecrets: []sink.Secret{sink.NewSecret(vectorSecret), sink.NewSecret("topsecret"), sink.NewSecret("whsec_topsecret=")}},
			want:   []string{"signing_secrets[1]: a signing secret begins with", "signing_secrets[2]: what follows"},
		},
		{
			name:   "too many secrets",
			config: Config{SigningSecrets: []sink.Secret{8: sink.NewSecret(vectorSecret)}},
			want:   []string{"signing_secrets: there are 9 signing secrets, at most 8"},
		},
		{
			name:   "final status",
			config: Config{FinalStatus: []int{404, 200, 99, 600, 429, 503}},
			want:   []string{"final_status[1]: 200 is not", "final_status[2]: 99 is not", "final_status[3]: 600 is not", "final_status[4]: 429 cannot be final"},
		},
		{name: "no final status", config: Config{FinalStatus: []int{}}},
		{
			name:   "header",
			config: Config{Headers: sink.Fixed(map[string]string{"Webhook-ID": "topsecret"})},
			want:   []string{`headers["Webhook-ID"]: header "Webhook-ID" is set by the sink itself`},
		},
		{
			name:   "tls without TLS",
			config: Config{URL: sink.NewSecret("http://127.0.0.1/"), TLS: &TLS{ServerName: "crm.example.com"}},
			want:   []string{"tls: tls needs a url that begins with https"},
		},
		{
			name:   "server name",
			config: Config{TLS: &TLS{ServerName: "https://crm.example.com"}},
			want:   []string{"tls.server_name: this is not a host name"},
		},
		{
			name: "several",
			config: Config{
				URL: sink.NewSecret("topsecret"), FinalStatus: []int{1},
				SigningSecrets: []sink.Secret{sink.NewSecret("topsecret")}, TLS: &TLS{KeyFile: "/none"},
			},
			want: []string{"url: ", "signing_secrets[0]: ", "final_status[0]: ", "tls.key_file: "},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := withDefaults(test.config)
			if c.URL == (sink.Secret{}) {
				c.URL = sink.NewSecret("https://127.0.0.1/")
			}
			err := c.Validate()
			var got []string
			if joined, ok := err.(interface{ Unwrap() []error }); ok {
				for _, one := range joined.Unwrap() {
					got = append(got, one.Error())
				}
			}
			if len(got) < len(test.want) || (len(test.want) == 0 && err != nil) {
				t.Fatalf("got %q, want %q", got, test.want)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("got %q, want %q", got[i], want)
				}
				if strings.Contains(got[i], "topsecret") {
					t.Errorf("%q shows a secret", got[i])
				}
			}
		})
	}
}

// The schema and its defaults, as the daemon and the SDK read them.
func TestDecodeDefaults(t *testing.T) {
	c, err := sink.Decode[Config](map[string]any{"url": "https://crm.example.com/callbacks"})
	if err != nil {
		t.Fatal(err)
	}
	if want := withDefaults(Config{}); c.Method != want.Method || c.Format != want.Format || c.AllowLinkLocal || c.TLS != nil || len(c.SigningSecrets) != 0 || c.Headers.IsSet() {
		t.Errorf("got %+v", c)
	}
	for i, status := range withDefaults(Config{}).FinalStatus {
		if i >= len(c.FinalStatus) || c.FinalStatus[i] != status {
			t.Fatalf("final_status: got %v", c.FinalStatus)
		}
	}
	if _, err := sink.Decode[Config](map[string]any{"url": "https://crm.example.com/", "format": "xml"}); err == nil {
		t.Error("an unknown format was taken")
	}
	c, err = sink.Decode[Config](map[string]any{
		"url": "https://crm.example.com/", "headers": map[string]any{"X-A": "1"}, "final_status": []any{},
		"signing_secrets": []any{vectorSecret}, "tls": map[string]any{"server_name": "receiver.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.FinalStatus) != 0 || c.TLS == nil || c.TLS.ServerName != "receiver.example.com" || c.SigningSecrets[0].Reveal() != vectorSecret || c.Headers.For(sampleEvent())["X-A"] != "1" {
		t.Errorf("got %+v", c)
	}
}
