package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// authority issues certificates for a test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// issue returns a certificate that is good until the time given.
func (a *authority) issue(t *testing.T, name string, until time.Time, ips ...net.IP) tls.Certificate {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: ips,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func keyDER(t *testing.T, certificate tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// copyOver replaces the content of a file and makes sure that its time differs.
func copyOver(t *testing.T, to, from string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o600); err != nil {
		t.Fatal(err)
	}
	later := info.ModTime().Add(time.Second)
	if err := os.Chtimes(to, later, later); err != nil {
		t.Fatal(err)
	}
}

var loopback = net.IPv4(127, 0, 0, 1)

func tlsReceiver(t *testing.T, config *tls.Config, http2 bool) *receiver {
	t.Helper()
	r := unstartedReceiver(t, nil)
	r.TLS = config
	r.EnableHTTP2 = http2
	r.StartTLS()
	return r
}

func TestTLS(t *testing.T) {
	ca, otherCA := newAuthority(t), newAuthority(t)
	hour := time.Now().Add(time.Hour)
	caFile := writePEM(t, "CERTIFICATE", ca.certificate.Raw)
	bothFile := writePEM(t, "CERTIFICATE", otherCA.certificate.Raw, ca.certificate.Raw)
	otherFile := writePEM(t, "CERTIFICATE", otherCA.certificate.Raw)
	clientCertificate := ca.issue(t, "client", hour)
	clientCert, clientKey := writePEM(t, "CERTIFICATE", clientCertificate.Certificate[0]), writePEM(t, "PRIVATE KEY", keyDER(t, clientCertificate))
	stranger := otherCA.issue(t, "client", hour)
	strangerCert, strangerKey := writePEM(t, "CERTIFICATE", stranger.Certificate[0]), writePEM(t, "PRIVATE KEY", keyDER(t, stranger))

	byAddress := ca.issue(t, "receiver.test", hour, loopback)
	byName := ca.issue(t, "crm.example.test", hour)
	expired := ca.issue(t, "receiver.test", time.Now().Add(-time.Hour), loopback)
	tests := []struct {
		name       string
		server     tls.Certificate
		wantClient bool
		maxVersion uint16
		tls        *TLS
		text       string // of the error, empty: delivered
	}{
		{name: "own authority", server: byAddress, tls: &TLS{CAFile: sink.Path(caFile)}},
		{name: "one of two authorities", server: byAddress, tls: &TLS{CAFile: sink.Path(bothFile)}},
		{name: "server name", server: byName, tls: &TLS{CAFile: sink.Path(caFile), ServerName: "crm.example.test"}},
		{name: "client certificate", server: byAddress, wantClient: true, tls: &TLS{CAFile: sink.Path(caFile), CertFile: sink.Path(clientCert), KeyFile: sink.Path(clientKey)}},
		{name: "TLS 1.2", server: byAddress, maxVersion: tls.VersionTLS12, tls: &TLS{CAFile: sink.Path(caFile)}},
		{name: "system's authorities", server: byAddress, text: "signed by an authority that is not trusted"},
		{name: "another authority", server: byAddress, tls: &TLS{CAFile: sink.Path(otherFile)}, text: "signed by an authority that is not trusted"},
		{name: "another name", server: byName, tls: &TLS{CAFile: sink.Path(caFile)}, text: "for another host name"},
		{name: "wrong server name", server: byName, tls: &TLS{CAFile: sink.Path(caFile), ServerName: "erp.example.test"}, text: "for another host name"},
		{name: "expired", server: expired, tls: &TLS{CAFile: sink.Path(caFile)}, text: "has expired"},
		// TLS 1.3 refuses a client certificate after the handshake: whether the
		// refusal is read before the connection is gone is a matter of luck.
		{name: "no client certificate", server: byAddress, wantClient: true, tls: &TLS{CAFile: sink.Path(caFile)}, text: "request failed: "},
		{name: "strange client certificate", server: byAddress, wantClient: true, tls: &TLS{CAFile: sink.Path(caFile), CertFile: sink.Path(strangerCert), KeyFile: sink.Path(strangerKey)}, text: "request failed: "},
		{name: "no client certificate, TLS 1.2", server: byAddress, wantClient: true, maxVersion: tls.VersionTLS12, tls: &TLS{CAFile: sink.Path(caFile)}, text: "refused the TLS connection"},
		{name: "TLS 1.1", server: byAddress, maxVersion: tls.VersionTLS11, tls: &TLS{CAFile: sink.Path(caFile)}, text: "refused the TLS connection"},
	}
	for _, test := range tests {
		for _, http2 := range []bool{false, true} {
			t.Run(test.name+map[bool]string{true: "/h2", false: "/http1.1"}[http2], func(t *testing.T) {
				config := &tls.Config{Certificates: []tls.Certificate{test.server}, MinVersion: tls.VersionTLS10, MaxVersion: test.maxVersion}
				if test.wantClient {
					config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool()
				}
				r := tlsReceiver(t, config, http2)
				w := openWebhook(t, Config{URL: sink.NewSecret(r.URL), TLS: test.tls})
				ev := sampleEvent()
				ev.Body = randomBytes(100_000)
				for range 3 {
					err := w.Deliver(t.Context(), ev)
					if test.text != "" {
						wantOutcome(t, err, sink.OutcomeRetry, 0)
						if err == nil || !strings.Contains(err.Error(), test.text) {
							t.Errorf("got %v, want %q", err, test.text)
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				if test.text != "" {
					if r.count() != 0 {
						t.Error("the receiver got a request")
					}
					return
				}
				for _, got := range r.got {
					if want := map[bool]int{true: 2, false: 1}[http2]; got.ProtoMajor != want {
						t.Errorf("HTTP/%d, want %d", got.ProtoMajor, want)
					}
					if string(got.body) != string(ev.Body) {
						t.Error("the body differs")
					}
					if test.wantClient && got.TLS.PeerCertificates[0].Subject.CommonName != "client" {
						t.Error("another client certificate")
					}
				}
				if made := r.made.Load(); made > 2 {
					t.Errorf("%d connections for 3 requests, want 1", made)
				}
			})
		}
	}
}

// New files are used without a restart; files that cannot be used change nothing
// and are told by Check.
func TestTLSFilesThatChange(t *testing.T) {
	ca := newAuthority(t)
	hour := time.Now().Add(time.Hour)
	clientCAs := ca.pool()
	caFile := writePEM(t, "CERTIFICATE", ca.certificate.Raw)
	first, second := ca.issue(t, "first", hour), ca.issue(t, "second", hour)
	certFile, keyFile := writePEM(t, "CERTIFICATE", first.Certificate[0]), writePEM(t, "PRIVATE KEY", keyDER(t, first))
	r := tlsReceiver(t, &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "receiver.test", hour, loopback)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: clientCAs,
	}, true)

	now := time.Now()
	w, err := newWebhook(withDefaults(Config{
		URL: sink.NewSecret(r.URL),
		TLS: &TLS{CAFile: sink.Path(caFile), CertFile: sink.Path(certFile), KeyFile: sink.Path(keyFile)},
	}), func() time.Time { return now }, newTransport)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(t.Context())
	deliverAs := func(want string) {
		t.Helper()
		now = now.Add(tlsFilesLookAfter)
		if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
			t.Fatal(err)
		}
		if got := r.last().TLS.PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("the receiver saw the certificate of %s, want %s", got, want)
		}
	}
	check := func(want string) {
		t.Helper()
		err := w.Check(t.Context())
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("Check: got %v, want %q", err, want)
		}
	}

	deliverAs("first")
	check("")
	copyOver(t, certFile, writePEM(t, "CERTIFICATE", second.Certificate[0])) // the key follows later
	deliverAs("first")
	check("do not belong together")
	copyOver(t, keyFile, writePEM(t, "PRIVATE KEY", keyDER(t, second)))
	deliverAs("second")
	check("")
	if err := os.Remove(caFile); err != nil {
		t.Fatal(err)
	}
	deliverAs("second")
	check("tls.ca_file: the file cannot be read: no such file or directory")
	copyOver(t, certFile, certFile)
	if err := os.WriteFile(caFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("no certificate is in the file")
	deliverAs("second")
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	ca := newAuthority(t)
	one, other := ca.issue(t, "one", time.Now().Add(time.Hour)), ca.issue(t, "other", time.Now().Add(time.Hour))
	cert, key := writePEM(t, "CERTIFICATE", one.Certificate[0]), writePEM(t, "PRIVATE KEY", keyDER(t, one))
	otherKey := writePEM(t, "PRIVATE KEY", keyDER(t, other))
	folder := t.TempDir()
	file := func(name, content string) string {
		name = filepath.Join(folder, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	empty, text := file("empty", ""), file("text", "topsecret")
	broken := writePEM(t, "CERTIFICATE", []byte("topsecret"))
	huge := file("huge", strings.Repeat("x", maxTLSFileBytes+1))
	pipe := filepath.Join(folder, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name          string
		ca, cert, key string
		want          string
	}{
		{name: "missing authority", ca: folder + "/none", want: "tls.ca_file: the file cannot be read: no such file or directory"},
		{name: "empty authority", ca: empty, want: "tls.ca_file: no certificate is in the file"},
		{name: "text as authority", ca: text, want: "tls.ca_file: no certificate is in the file"},
		{name: "key as authority", ca: key, want: "tls.ca_file: no certificate is in the file"},
		{name: "broken authority", ca: broken, want: "tls.ca_file: certificate 1 of the file cannot be read"},
		{name: "huge authority", ca: huge, want: "tls.ca_file: the file is larger than 4 MiB"},
		{name: "folder", ca: folder, want: "tls.ca_file: this is not a regular file"},
		{name: "named pipe", ca: pipe, want: "tls.ca_file: this is not a regular file"},
		{name: "certificate without key", cert: cert, want: "tls.cert_file: cert_file needs key_file beside it"},
		{name: "key without certificate", key: key, want: "tls.key_file: key_file needs cert_file beside it"},
		{name: "missing certificate", cert: folder + "/none", key: key, want: "tls.cert_file: the file cannot be read: no such file or directory"},
		{name: "missing key", cert: cert, key: folder + "/none", want: "tls.key_file: the file cannot be read: no such file or directory"},
		{name: "text as certificate", cert: text, key: key, want: "tls.cert_file: no certificate is in the file"},
		{name: "text as key", cert: cert, key: text, want: "tls.key_file: no private key is in the file"},
		{name: "key of another", cert: cert, key: otherKey, want: "tls.key_file: cert_file and key_file do not belong together"},
		{name: "broken certificate", cert: broken, key: key, want: "tls.key_file: cert_file and key_file do not belong together, or one of them cannot be read"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := withDefaults(Config{
				URL: sink.NewSecret("https://127.0.0.1/"),
				TLS: &TLS{CAFile: sink.Path(test.ca), CertFile: sink.Path(test.cert), KeyFile: sink.Path(test.key)},
			}).Validate()
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "topsecret") {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func tlsServerConfig(t *testing.T, ca *authority, name string) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{ca.issue(t, name, time.Now().Add(time.Hour))}}
}

// Connections that break must not use up the number of those allowed.
func TestConnectionsThatBreakAreNotCounted(t *testing.T) {
	ca := newAuthority(t)
	for name, http2 := range map[string]bool{"h2": true, "http1.1": false} {
		t.Run(name, func(t *testing.T) {
			r := tlsReceiver(t, tlsServerConfig(t, ca, "receiver.test"), http2)
			w := openWebhook(t, Config{
				URL: sink.NewSecret(r.URL),
				TLS: &TLS{CAFile: sink.Path(writePEM(t, "CERTIFICATE", ca.certificate.Raw)), ServerName: "receiver.test"},
			})
			const limit = 4
			w.transport.(*netHTTP).transport.Load().MaxConnsPerHost = limit
			ctx, cancel := deadline(t, 20*time.Second)
			defer cancel()
			for range 30 {
				if err := w.Deliver(ctx, sampleEvent()); errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				r.CloseClientConnections()
			}
			// Some of these find the connection broken before the receiver has them.
			if made := r.made.Load(); made < 2*limit {
				t.Errorf("only %d connections were made", made)
			}
		})
	}
}
