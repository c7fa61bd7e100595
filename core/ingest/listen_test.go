package ingest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// running serves a rig on a loopback port and returns its address and a function
// that stops it and returns what Run returned.
func (r *rig) running(t testing.TB) (addr string, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.run(ctx, ln, r.front()) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			t.Fatal("Run does not end")
			return nil
		}
	}
	t.Cleanup(func() { _ = stop() })
	return ln.Addr().String(), stop
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	return conn
}

// ask writes a raw request and reads the answer.
func ask(t *testing.T, conn net.Conn, raw string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp
}

func TestKeepAlive(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		addr, stop := rig.running(t)
		conn := dial(t, addr)
		for range 3 {
			if resp := ask(t, conn, "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"); resp.StatusCode != http.StatusAccepted || resp.Close {
				t.Errorf("%s, close %v", resp.Status, resp.Close)
			}
		}
		if resp := ask(t, conn, "POST /ci HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"); resp.StatusCode != http.StatusAccepted {
			t.Errorf("chunked: %s", resp.Status)
		}
		if resp := ask(t, conn, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("OPTIONS *: %s", resp.Status)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if rig.kept.count() != 4 {
			t.Errorf("%d kept", rig.kept.count())
		}
	})
}

// TestExpectContinue: a body that is refused is not even sent.
func TestExpectContinue(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := httpSource()
		settings.MaxBody = 10
		rig := newRig(t, on, testSettings(), oneRoute(), settings)
		addr, _ := rig.running(t)
		resp := ask(t, dial(t, addr), "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s", resp.Status)
		}
		conn := dial(t, addr)
		if resp := ask(t, conn, "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"); resp.StatusCode != http.StatusContinue {
			t.Errorf("%s", resp.Status)
		}
		if resp := ask(t, conn, "hello"); resp.StatusCode != http.StatusAccepted {
			t.Errorf("%s", resp.Status)
		}
		resp = ask(t, dial(t, addr), "POST /ci HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n0123456789x\r\n")
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("chunked: %s", resp.Status)
		}
	})
}

func TestSlowBody(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := testSettings()
		settings.ReadTimeout = 300 * time.Millisecond
		settings.ReadHeaderTimeout = 200 * time.Millisecond
		rig := newRig(t, on, settings, oneRoute(), tencentSource())
		addr, _ := rig.running(t)
		conn := dial(t, addr)
		start := time.Now()
		resp := ask(t, conn, "POST "+chatQuery+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusRequestTimeout || !resp.Close || !strings.HasPrefix(string(body), `{"ActionStatus":"FAIL"`) {
			t.Errorf("%s close %v %s", resp.Status, resp.Close, body)
		}
		if took := time.Since(start); took < 250*time.Millisecond {
			t.Errorf("it took only %v", took)
		}
		if rig.kept.count() != 0 {
			t.Error("a part of a body was kept")
		}
	})
}

// TestSlowHeaders: connections that never finish their headers give way, though
// they fill max_connections.
func TestSlowHeaders(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := testSettings()
		settings.MaxConnections = 3
		settings.ReadHeaderTimeout = 300 * time.Millisecond
		rig := newRig(t, on, settings, oneRoute(), httpSource())
		addr, _ := rig.running(t)
		for range 3 {
			if _, err := io.WriteString(dial(t, addr), "POST /ci HTTP/1.1\r\nHost: x\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		resp := ask(t, dial(t, addr), "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
		if resp.StatusCode != http.StatusAccepted {
			t.Errorf("%s", resp.Status)
		}
	})
}

// TestMaxConnections: one more connection than allowed waits until another ends.
func TestMaxConnections(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := testSettings()
		settings.MaxConnections = 2
		rig := newRig(t, on, settings, oneRoute(), httpSource())
		addr, _ := rig.running(t)
		const request = "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
		first, second, third := dial(t, addr), dial(t, addr), dial(t, addr)
		ask(t, first, request)
		ask(t, second, request)
		if _, err := io.WriteString(third, request); err != nil {
			t.Fatal(err)
		}
		_ = third.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := third.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a third connection was served: %v", err)
		}
		_ = first.Close()
		_ = third.SetReadDeadline(time.Now().Add(10 * time.Second))
		if resp, err := http.ReadResponse(bufio.NewReader(third), nil); err != nil || resp.StatusCode != http.StatusAccepted {
			t.Errorf("%v %v", resp, err)
		}
	})
}

func TestHeaderLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := testSettings()
		settings.MaxHeaderBytes = 8 << 10
		rig := newRig(t, on, settings, oneRoute(), httpSource())
		addr, _ := rig.running(t)
		conn := dial(t, addr)
		if _, err := io.WriteString(conn, "POST /ci HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 20<<10)+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		// The status only: the rest of the answer may be lost to the bytes that the
		// server left unread.
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%v %v", resp, err)
		}
	})
}

// TestGracefulStop: a callback in work is answered, new connections are not taken.
func TestGracefulStop(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		entered, hold := make(chan struct{}), make(chan struct{})
		rig.kept.hook = func(context.Context) { close(entered); <-hold }
		addr, stop := rig.running(t)
		idle := dial(t, addr)
		conn := dial(t, addr)
		answered := make(chan *http.Response, 1)
		go func() {
			_, _ = io.WriteString(conn, "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
			resp, _ := http.ReadResponse(bufio.NewReader(conn), nil)
			answered <- resp
		}()
		<-entered
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		for {
			c, err := net.DialTimeout("tcp", addr, time.Second)
			if err != nil {
				break
			}
			_ = c.Close()
		}
		select {
		case err := <-stopped:
			t.Fatalf("it ended with a callback in work: %v", err)
		default:
		}
		close(hold)
		if resp := <-answered; resp == nil || resp.StatusCode != http.StatusAccepted {
			t.Errorf("the callback in work got %v", resp)
		}
		_ = idle.Close() // net/http gives a connection that never spoke some seconds
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestGraceEnds: a callback that does not end is cut off, and that is said.
func TestGraceEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := testSettings()
		settings.Grace = 100 * time.Millisecond
		rig := newRig(t, on, settings, oneRoute(), httpSource())
		entered, hold := make(chan struct{}), make(chan struct{})
		rig.kept.hook = func(context.Context) { close(entered); <-hold }
		addr, stop := rig.running(t)
		conn := dial(t, addr)
		if _, err := io.WriteString(conn, "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"); err != nil {
			t.Fatal(err)
		}
		<-entered
		if err := stop(); err == nil || !strings.Contains(err.Error(), "1 callbacks were still in work") {
			t.Errorf("%v", err)
		}
		close(hold)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is still open")
		}
		for rig.inFlight.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
	})
}

// TestListenerFails: an error of the listener ends Run with it.
func TestListenerFails(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute())
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
		if err := rig.Run(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}

// authority makes certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) issue(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &leaf.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// callTLS sends a callback on a new connection and returns the serial number of the
// server's certificate.
func callTLS(t *testing.T, addr string, config *tls.Config, http2 bool) (serial int64, err error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: http2, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	resp, err := client.Post("https://"+addr+"/ci", "text/plain", strings.NewReader("x"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	want := 1
	if http2 {
		want = 2
	}
	if resp.StatusCode != http.StatusAccepted || resp.ProtoMajor != want {
		return 0, fmt.Errorf("%s %s", resp.Proto, resp.Status)
	}
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestTLSFilesChange(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	settings := testSettings()
	settings.TLS = &TLSFiles{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	cert, key := ca.issue(t, 101)
	write(t, settings.TLS.CertFile, cert)
	write(t, settings.TLS.KeyFile, key)
	rig := newRig(t, onNetHTTP, settings, oneRoute(), httpSource())
	rig.certs.every = 10 * time.Millisecond
	addr, stop := rig.running(t)
	config := &tls.Config{RootCAs: ca.pool()}

	for _, http2 := range []bool{true, false} {
		if serial, err := callTLS(t, addr, config, http2); err != nil || serial != 101 {
			t.Fatalf("HTTP/2 %v: %d %v", http2, serial, err)
		}
	}
	if _, err := callTLS(t, addr, &tls.Config{RootCAs: ca.pool(), MaxVersion: tls.VersionTLS11}, false); err == nil {
		t.Error("TLS 1.1 was taken")
	}

	// eventually waits for the background look at the files.
	eventually := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not happen; log:\n%s", what, rig.log)
			}
		}
	}
	// Half of a new pair is not good: the old one stays, with one warning.
	cert, key = ca.issue(t, 102)
	write(t, settings.TLS.CertFile, cert)
	eventually("a warning", func() bool { return strings.Contains(rig.log.String(), "the old ones stay in use") })
	time.Sleep(50 * time.Millisecond) // several more looks
	if serial, err := callTLS(t, addr, config, true); err != nil || serial != 101 {
		t.Errorf("half a pair: %d %v", serial, err)
	}
	if n := strings.Count(rig.log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, rig.log)
	}
	write(t, settings.TLS.KeyFile, key)
	eventually("the exchange", func() bool { return strings.Contains(rig.log.String(), "new TLS files are in use") })
	if serial, err := callTLS(t, addr, config, true); err != nil || serial != 102 {
		t.Errorf("new pair: %d %v", serial, err)
	}
	// Files that vanish are a warning; the same files again are no news for senders.
	if err := os.Remove(settings.TLS.KeyFile); err != nil {
		t.Fatal(err)
	}
	eventually("a warning", func() bool { return strings.Contains(rig.log.String(), "cannot be read") })
	if serial, err := callTLS(t, addr, config, true); err != nil || serial != 102 {
		t.Errorf("no key file: %d %v", serial, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if log := rig.log.String(); strings.Contains(log, "PRIVATE") {
		t.Error("the log holds the key")
	}
}

// TestSlowBodyHTTP2: the read timeout holds for each stream of a connection.
func TestSlowBodyHTTP2(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	settings := testSettings()
	settings.ReadTimeout, settings.ReadHeaderTimeout = 300*time.Millisecond, 300*time.Millisecond
	settings.TLS = &TLSFiles{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	cert, key := ca.issue(t, 1)
	write(t, settings.TLS.CertFile, cert)
	write(t, settings.TLS.KeyFile, key)
	rig := newRig(t, onNetHTTP, settings, oneRoute(), httpSource())
	addr, _ := rig.running(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool()}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	body, never := io.Pipe()
	defer func() { _ = never.Close() }()
	resp, err := client.Post("https://"+addr+"/ci", "text/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout || resp.ProtoMajor != 2 {
		t.Errorf("%s %s", resp.Proto, resp.Status)
	}
	if rig.kept.count() != 0 {
		t.Error("it was kept")
	}
}

func TestClientCertificates(t *testing.T) {
	servers, clients, strangers := newAuthority(t), newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	settings := testSettings()
	settings.TLS = &TLSFiles{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), ClientCAFile: filepath.Join(dir, "ca.pem"),
	}
	cert, key := servers.issue(t, 1)
	write(t, settings.TLS.CertFile, cert)
	write(t, settings.TLS.KeyFile, key)
	write(t, settings.TLS.ClientCAFile, clients.pem)
	rig := newRig(t, onNetHTTP, settings, oneRoute(), httpSource())
	addr, _ := rig.running(t)
	for name, tt := range map[string]struct {
		issuer *authority
		ok     bool
	}{"ours": {clients, true}, "a stranger's": {strangers, false}, "none": {nil, false}} {
		config := &tls.Config{RootCAs: servers.pool()}
		if tt.issuer != nil {
			cert, key := tt.issuer.issue(t, 7)
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		if _, err := callTLS(t, addr, config, true); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if rig.kept.count() != 1 {
		t.Errorf("%d kept", rig.kept.count())
	}
}

func TestBadTLSFiles(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	cert, key := ca.issue(t, 1)
	write(t, path("cert"), cert)
	write(t, path("key"), key)
	write(t, path("junk"), []byte("junk"))
	write(t, path("huge"), make([]byte, maxPEM+1))
	for _, tt := range []struct {
		files TLSFiles
		want  string
	}{
		{TLSFiles{path("none"), path("key"), ""}, "none"},
		{TLSFiles{path("cert"), path("cert"), ""}, "key_file"},
		{TLSFiles{path("junk"), path("key"), ""}, "cert_file"},
		{TLSFiles{path("huge"), path("key"), ""}, "larger than"},
		{TLSFiles{path("cert"), path("key"), path("junk")}, "client_ca_file"},
		{TLSFiles{"", path("key"), ""}, "read a TLS file"},
	} {
		if _, err := newCertificates(tt.files, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v", tt.files, err)
		}
	}
}
