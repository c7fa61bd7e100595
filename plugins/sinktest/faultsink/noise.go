package faultsink

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"
)

// OddLines are lines on stderr that break parsers of hclog's JSON.
func OddLines() []string {
	return []string{
		`{"@message":1}`, `{"@message":null}`, `{"@level":1,"@message":"x"}`, `{"@timestamp":7,"@message":"x"}`,
		`{"@message":"x","@timestamp":"yesterday"}`, `{"@level":{},"@message":[]}`, `{`, `{}`, `[]`, `null`, `"`,
		`{"a":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`,
		"\x00\xff\xfe not UTF-8", "[WARN] old style", "[", "[]", "panic: not really",
		`{"@level":"warn","@message":"well-formed","n":12345678901234567890,"nested":{"a":[1,2]}}`,
	}
}

// noise makes the noise on stderr that the environment asks for, past go-plugin.
func noise(stderr io.Writer) {
	fault := os.Getenv(EnvStderr)
	if fault == "odd" {
		for _, line := range OddLines() {
			_, _ = fmt.Fprintln(stderr, line)
		}
	}
	if n, ok := argument(fault, "flood"); ok {
		flood(stderr, number(n))
	}
	if n, ok := argument(fault, "line"); ok {
		chunk := strings.Repeat("z", 64<<10)
		for written := 0; written < number(n); written += len(chunk) {
			_, _ = io.WriteString(stderr, chunk)
		}
	}
	if text, ok := argument(fault, "secret"); ok {
		_, _ = fmt.Fprintf(stderr, "{\"@level\":\"info\",\"@message\":\"posting to %s\",\"url\":\"%s\"}\n", text, text)
		_, _ = fmt.Fprintln(stderr, "plain", text)
	}
}

// noiseAfter makes the noise on standard output that comes after the handshake.
func noiseAfter(stdout io.Writer) {
	if n, ok := argument(os.Getenv(EnvStdout), "noise"); ok {
		_, _ = fmt.Fprintln(stdout, strings.Repeat("y", number(n)))
		_, _ = fmt.Fprintln(stdout, "the end of the noise")
	}
}

// flood writes lines of all lengths, up to 100 KiB, n bytes in all.
func flood(w io.Writer, n int) {
	for i := 0; n > 0; i++ {
		line := fmt.Sprintf("flood %d %s\n", i, strings.Repeat("z", (i*i*37)%1000))
		if i%100 == 99 {
			line = fmt.Sprintf("flood %d %s\n", i, strings.Repeat("z", 100<<10))
		}
		m, err := io.WriteString(w, line)
		if err != nil {
			return
		}
		n -= m
	}
	_, _ = io.WriteString(w, "the end of the flood\n")
}

// anyCertificate is one that nobody has the key of.
func anyCertificate() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return base64.RawStdEncoding.EncodeToString(der)
}
