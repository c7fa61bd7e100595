package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// adminURLEnv names the environment variable that stands in for --admin, so that a
	// password need not be typed.
	adminURLEnv  = "CALLBACKD_ADMIN_URL"
	adminTimeout = 10 * time.Second
	// maxAdminAnswer bounds what is read of an answer.
	maxAdminAnswer = 96 << 20
)

// adminClient talks to the admin address of a running daemon.
type adminClient struct {
	config, url, caFile string
}

func (c *adminClient) flags(cmd *cobra.Command) {
	configFlag(cmd, &c.config)
	cmd.Flags().StringVar(&c.url, "admin", "", "the URL of the admin address, where it is not the configuration's")
	cmd.Flags().StringVar(&c.caFile, "ca-file", "", "a file with certificates in PEM that the daemon's is checked against")
}

// get asks for a path and decodes the answer.
func (c *adminClient) get(cmd *cobra.Command, path string, into any) error {
	return c.call(cmd, adminCall{method: http.MethodGet, path: path}, into)
}

// adminCall is what the daemon is asked for.
type adminCall struct {
	method, path string
	query        url.Values
	body         any // nil: none
	// timeout is how long the answer may take; 0: adminTimeout.
	timeout time.Duration
	// answers are codes besides the successful ones whose answer is decoded.
	answers []int
}

// call asks the daemon and decodes the answer. What it calls a bad request is wrong
// use.
func (c *adminClient) call(cmd *cobra.Command, ask adminCall, into any) error {
	base, err := c.base(cmd)
	if err != nil {
		return err
	}
	transport, err := c.transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(cmd.Context(), cmp.Or(ask.timeout, adminTimeout))
	defer cancel()
	req, err := ask.request(ctx, base)
	if err != nil {
		return fmt.Errorf("ask the daemon at %s: %w", base.Redacted(), err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the URL, which may hold a password
		}
		return fmt.Errorf("the daemon does not answer at %s: %w", base.Redacted(), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", base.Redacted(), err)
	}
	if resp.StatusCode/100 != 2 && !slices.Contains(ask.answers, resp.StatusCode) {
		return refused(base, resp, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("what answers at %s is no callbackd of this kind: %w", base.Redacted(), err)
	}
	return nil
}

func (a adminCall) request(ctx context.Context, base *url.URL) (*http.Request, error) {
	u := base.JoinPath(a.path)
	u.RawQuery = a.query.Encode()
	var body io.Reader
	if a.body != nil {
		b, err := json.Marshal(a.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, a.method, u.String(), body)
	if err == nil && a.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, err
}

// refused is the error for an answer that is not a success.
func refused(base *url.URL, resp *http.Response, body []byte) error {
	if resp.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("%s asks for a user and a password: give them with --admin or %s", base.Redacted(), adminURLEnv)
	}
	var said struct{ Error string }
	if json.Unmarshal(body, &said) != nil || said.Error == "" {
		return fmt.Errorf("%s answers %s: %s", base.Redacted(), resp.Status, visible(strings.TrimSpace(string(body[:min(len(body), 500)]))))
	}
	if resp.StatusCode == http.StatusBadRequest {
		return &usageError{visible(said.Error)}
	}
	return errors.New(visible(said.Error))
}

// base is the URL of the admin address.
func (c *adminClient) base(cmd *cobra.Command) (*url.URL, error) {
	text := cmp.Or(c.url, os.Getenv(adminURLEnv))
	if text == "" {
		cfg, diagnostics, err := readConfig(c.config)
		if err != nil {
			return nil, err
		}
		if cfg == nil {
			tell(cmd, diagnostics)
			return nil, errors.New("the admin address is not known, because the configuration cannot be read: give it with --admin URL, such as http://127.0.0.1:8081")
		}
		if cfg.Admin.WebConfigFile != "" {
			return nil, fmt.Errorf("the admin address has TLS or a password of its own (web_config_file): give its URL with --admin or %s", adminURLEnv)
		}
		text = "http://" + reachable(cfg.Admin.Address)
		if diagnostics.HasErrors() {
			// The daemon runs, and people need it most while they mend its configuration.
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "callbackd: the configuration has mistakes, which \"callbackd validate\" shows; asking the daemon at %s all the same\n", text)
		}
	}
	base, err := url.Parse(text)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, &usageError{"the URL of the admin address is not of the form http://HOST:PORT or https://USER:PASSWORD@HOST:PORT"}
	}
	return base, nil
}

func (c *adminClient) transport() (*http.Transport, error) {
	transport := &http.Transport{Proxy: nil} // the daemon is near
	if c.caFile == "" {
		return transport, nil
	}
	pem, err := os.ReadFile(c.caFile)
	if err != nil {
		return nil, fmt.Errorf("read --ca-file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca-file %s holds no certificate in PEM", c.caFile)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return transport, nil
}
