package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/callbackd/callbackd/plugins/sink"
)

func literal(u *url.URL) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.TrimSuffix(u.Hostname(), "."))
	return addr, err == nil
}

func setProxy(t *testing.T, proxy string) {
	t.Helper()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "REQUEST_METHOD"} {
		t.Setenv(name, "")
	}
	t.Setenv("HTTP_PROXY", proxy)
	t.Setenv("HTTPS_PROXY", proxy)
}

func TestProxy(t *testing.T) {
	r := newReceiver(t, nil)
	setProxy(t, strings.Replace(r.URL, "http://", "http://proxy-user:proxy-pass@", 1))
	w := openWebhook(t, Config{URL: sink.NewSecret("http://user:pass@crm.example.test/callbacks?x=1")})
	if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
		t.Fatal(err)
	}
	got := r.only(t)
	if got.RequestURI != "http://crm.example.test/callbacks?x=1" || got.Host != "crm.example.test" {
		t.Errorf("got %s, Host %s", got.RequestURI, got.Host)
	}
	if user, pass, _ := got.BasicAuth(); user != "user" || pass != "pass" {
		t.Errorf("got user %q, password %q", user, pass)
	}
	if got.Header.Get("Proxy-Authorization") == "" {
		t.Error("the proxy got no credentials")
	}
}

// connectProxy answers CONNECT with status, and passes the bytes on to target
// when that is a success.
func connectProxy(t *testing.T, status, target string) string {
	return "http://proxy-user:proxy-pass@" + rawReceiver(t, func(conn net.Conn) {
		reader := bufio.NewReader(conn)
		req, err := http.ReadRequest(reader)
		if err != nil || req.Method != http.MethodConnect {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\n\r\n")
		if target == "" {
			return
		}
		there, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer there.Close()
		go func() {
			_, _ = io.Copy(there, reader)
			there.Close()
		}()
		_, _ = io.Copy(conn, there)
	})
}

func TestProxyTunnel(t *testing.T) {
	ca := newAuthority(t)
	r := tlsReceiver(t, tlsServerConfig(t, ca, "crm.example.test"), true)
	setProxy(t, connectProxy(t, "200 OK", r.Listener.Addr().String()))
	w := openWebhook(t, Config{
		URL: sink.NewSecret("https://crm.example.test/callbacks"),
		TLS: &TLS{CAFile: sink.Path(writePEM(t, "CERTIFICATE", ca.certificate.Raw))},
	})
	if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
		t.Fatal(err)
	}
	if got := r.only(t); got.ProtoMajor != 2 || got.Host != "crm.example.test" {
		t.Errorf("HTTP/%d, Host %s", got.ProtoMajor, got.Host)
	}
}

func TestProxyThatRefuses(t *testing.T) {
	tests := map[string]struct{ proxy, want string }{
		"credentials": {connectProxy(t, "407 proxy-pass topsecret", ""), "request failed: the proxy answered 407 to CONNECT"},
		"metadata":    {"http://proxy-user:proxy-pass@169.254.169.254:3128", "cannot connect to the proxy: " + errRefusedAddress.Error()},
		"socks":       {"socks5://proxy-user:proxy-pass@169.254.169.254:1080", errRefusedAddress.Error()},
		"nobody":      {"http://proxy-user:proxy-pass@127.0.0.1:1", "cannot connect to the proxy: connection refused"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			setProxy(t, test.proxy)
			err := openWebhook(t, Config{URL: sink.NewSecret("https://crm.example.test/")}).Deliver(t.Context(), sampleEvent())
			wantOutcome(t, err, sink.OutcomeRetry, 0)
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want %q", err, test.want)
			}
			for _, secret := range []string{"proxy-user", "proxy-pass", "topsecret"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q shows %q", err, secret)
				}
			}
		})
	}
	for _, proxy := range []string{"http://proxy-user:proxy-pass@[::1", "ftp://proxy-user:proxy-pass@127.0.0.1"} {
		setProxy(t, proxy)
		err := withDefaults(Config{URL: sink.NewSecret("https://crm.example.test/")}).Validate()
		if err == nil || !strings.Contains(err.Error(), "proxy variable") || strings.Contains(err.Error(), "proxy-") {
			t.Errorf("got %v", err)
		}
	}
}
