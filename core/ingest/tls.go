package ingest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// lookEvery is how often the files of a TLS server are looked at.
const lookEvery = 5 * time.Second

// maxPEM bounds a file of a TLS server.
const maxPEM = 1 << 20

// certificates serves what the newest good state of the files says. Files are
// compared by content: time stamps and links tell too little about secrets that an
// orchestrator exchanges.
type certificates struct {
	files  TLSFiles
	every  time.Duration
	logger *slog.Logger
	config atomic.Pointer[tls.Config]
	seen   pemFiles // what was read last; used by one goroutine at a time
	failed bool     // whether reading failed last
}

// pemFiles is the content of the files.
type pemFiles struct{ cert, key, clientCA []byte }

// newCertificates reads the files.
func newCertificates(files TLSFiles, logger *slog.Logger) (*certificates, error) {
	c := &certificates{files: files, every: lookEvery, logger: logger}
	var err error
	if c.seen, err = files.read(); err != nil {
		return nil, err
	}
	config, err := c.seen.config(files)
	if err != nil {
		return nil, err
	}
	c.config.Store(config)
	return c, nil
}

// serverConfig is the configuration of a listener. It asks for the newest one at
// each handshake.
func (c *certificates) serverConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return c.config.Load(), nil
		},
	}
}

// reload looks whether the files have changed, and takes them if they are good. It
// complains once about each bad state.
func (c *certificates) reload() {
	now, err := c.files.read()
	if err != nil {
		if !c.failed {
			c.logger.Warn("the TLS files cannot be read; the old ones stay in use", "error", err)
		}
		c.failed = true
		return
	}
	if !c.failed && now.equal(c.seen) {
		return
	}
	c.failed = false
	c.seen = now
	config, err := now.config(c.files)
	if err != nil {
		c.logger.Warn("the new TLS files are not good; the old ones stay in use", "error", err)
		return
	}
	c.config.Store(config)
	c.logger.Info("new TLS files are in use", "cert_file", c.files.CertFile,
		"not_after", config.Certificates[0].Leaf.NotAfter)
}

func (f TLSFiles) read() (pemFiles, error) {
	var p pemFiles
	for _, file := range []struct {
		path string
		into *[]byte
	}{{f.CertFile, &p.cert}, {f.KeyFile, &p.key}, {f.ClientCAFile, &p.clientCA}} {
		if file.path == "" && file.into == &p.clientCA {
			continue
		}
		content, err := readPEM(file.path)
		if err != nil {
			return pemFiles{}, err
		}
		*file.into = content
	}
	return p, nil
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("read a TLS file: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, fmt.Errorf("read a TLS file: %w", err)
	}
	if len(content) > maxPEM {
		return nil, fmt.Errorf("read a TLS file: %s is larger than %d bytes", path, maxPEM)
	}
	return content, nil
}

func (p pemFiles) equal(q pemFiles) bool {
	return bytes.Equal(p.cert, q.cert) && bytes.Equal(p.key, q.key) && bytes.Equal(p.clientCA, q.clientCA)
}

// config is what the server does with these files.
func (p pemFiles) config(files TLSFiles) (*tls.Config, error) {
	cert, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		return nil, fmt.Errorf("cert_file %s with key_file %s: %w", files.CertFile, files.KeyFile, err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{cert},
	}
	if files.ClientCAFile != "" {
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(p.clientCA) {
			return nil, fmt.Errorf("client_ca_file %s: %w", files.ClientCAFile, errNoCertificate)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

var errNoCertificate = errors.New("there is no certificate in it")
