package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// maxTLSFileBytes bounds what is read of a certificate or key file. Bundles of
// public authorities are about 250 KiB.
const maxTLSFileBytes = 4 << 20

// tlsFiles are the settings of the tls block. Empty paths: the system's
// authorities, no client certificate.
type tlsFiles struct {
	ca, cert, key string
	serverName    string
}

// any tells whether there are files to look after.
func (f tlsFiles) any() bool { return f.ca != "" || f.cert != "" || f.key != "" }

// fileStamps tell whether files changed.
type fileStamps [3]fileStamp

type fileStamp struct {
	modified time.Time
	size     int64
}

// settingError is what is wrong with one setting.
type settingError struct {
	path            string // as sink.Invalid takes it
	summary, detail string
}

func (e *settingError) Error() string { return e.path + ": " + e.summary }

func (f tlsFiles) named() [3][2]string {
	return [3][2]string{{"tls.ca_file", f.ca}, {"tls.cert_file", f.cert}, {"tls.key_file", f.key}}
}

// stat returns the stamps of the files. Symbolic links are followed: a mounted
// secret is replaced by moving one.
func (f tlsFiles) stat() (fileStamps, error) {
	var stamps fileStamps
	for i, file := range f.named() {
		path, name := file[0], file[1]
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return fileStamps{}, unreadable(path, err)
		}
		stamps[i] = fileStamp{modified: info.ModTime(), size: info.Size()}
	}
	return stamps, nil
}

// load makes the TLS configuration. Its errors are settingErrors.
func (f tlsFiles) load() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.ca != "" {
		pool, err := loadAuthorities(f.ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if f.cert != "" || f.key != "" {
		certificate, err := f.loadCertificate()
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

func loadAuthorities(name string) (*x509.CertPool, error) {
	const path = "tls.ca_file"
	rest, err := readFile(path, name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	count := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &settingError{path, fmt.Sprintf("certificate %d of the file cannot be read", count+1), "The file must hold certificates in PEM form."}
		}
		pool.AddCert(certificate)
		count++
	}
	if count == 0 {
		return nil, &settingError{path, "no certificate is in the file", "The file must hold the certificates of one or more authorities in PEM form."}
	}
	return pool, nil
}

func (f tlsFiles) loadCertificate() (tls.Certificate, error) {
	switch {
	case f.key == "":
		return tls.Certificate{}, &settingError{"tls.cert_file", "cert_file needs key_file beside it", "A client certificate is of use only with its private key."}
	case f.cert == "":
		return tls.Certificate{}, &settingError{"tls.key_file", "key_file needs cert_file beside it", "A private key is of use only with its certificate."}
	}
	certPEM, err := readFile("tls.cert_file", f.cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := readFile("tls.key_file", f.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	if block, _ := pem.Decode(certPEM); block == nil {
		return tls.Certificate{}, &settingError{"tls.cert_file", "no certificate is in the file", "The file must hold the client certificate, and those between it and its authority, in PEM form."}
	}
	if block, _ := pem.Decode(keyPEM); block == nil {
		return tls.Certificate{}, &settingError{"tls.key_file", "no private key is in the file", "The file must hold the private key in PEM form, not encrypted."}
	}
	certificate, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, &settingError{"tls.key_file", "cert_file and key_file do not belong together, or one of them cannot be read", "The key must be the one the certificate was made for, in PEM form, not encrypted."}
	}
	return certificate, nil
}

// readFile reads a whole file, unless it is too large or not a file: opening a
// named pipe would wait for a writer.
func readFile(path, name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, &settingError{path, "this is not a regular file", "Name a file in PEM form."}
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxTLSFileBytes+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	if len(content) > maxTLSFileBytes {
		return nil, &settingError{path, fmt.Sprintf("the file is larger than %d MiB", maxTLSFileBytes>>20), "Name a file in PEM form."}
	}
	return content, nil
}

func unreadable(path string, err error) error {
	cause := err
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		cause = pathError.Err // the name stands in the configuration
	}
	return &settingError{path, "the file cannot be read: " + cause.Error(), "The file must exist and be readable by the user that callbackd runs as."}
}
