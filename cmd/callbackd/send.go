package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core"
	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/ingest"
	"github.com/spf13/cobra"
)

// Limits of send.
const (
	sendTimeout   = 30 * time.Second
	maxSampleSize = 32 << 20 // the largest max_body
	maxAnswer     = 64 << 10
)

// sampleFlags say which callback a sample is.
type sampleFlags struct {
	config, source string
	query, headers []string
	base           string
}

func (f *sampleFlags) register(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	cmd.Flags().StringVarP(&f.source, "source", "s", "", "the name of the source; may be left out where there is only one")
	cmd.Flags().StringArrayVarP(&f.query, "query", "q", nil, "a NAME=VALUE of the query, instead of what the provider would send; may be repeated")
	cmd.Flags().StringArrayVarP(&f.headers, "header", "H", nil, "a 'Name: value' header; may be repeated")
}

func newSend() *cobra.Command {
	var f sampleFlags
	cmd := &cobra.Command{
		Use:   "send [FILE]...",
		Short: "Post a body to a source as its provider would, signed",
		Long: `Post each FILE (or standard input: -) to a source of the configuration, as its
provider would: with the provider's query and headers, signed with the source's
own secrets. So a configuration can be tried without the provider.

Exits with 1 when a callback was refused.`,
		Example: `  callbackd send --source chat group_info_changed.json
  echo '{"a":1}' | callbackd send --source ci --header 'X-Event-Type: push' -`,
		Args: someFiles,
		RunE: command(func(cmd *cobra.Command, files []string) error {
			cfg, err := loadConfig(cmd, f.config)
			if err != nil {
				return err
			}
			source, err := findSource(cfg, f.source)
			if err != nil {
				return err
			}
			client, err := sendClient(cfg)
			if err != nil {
				return err
			}
			defer client.CloseIdleConnections()
			base, err := f.target(cfg)
			if err != nil {
				return err
			}
			refused := false
			for _, file := range files {
				request, err := f.request(cmd, source, base, file)
				if err != nil {
					return err
				}
				ok, err := send(cmd.OutOrStdout(), client, request, file)
				if err != nil {
					return err
				}
				refused = refused || !ok
			}
			if refused {
				return errSaid
			}
			return nil
		}),
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.base, "url", "", "scheme, host and port of the daemon (default: from the configuration)")
	return cmd
}

// target is the scheme, host and port that callbacks are sent to.
func (f *sampleFlags) target(cfg *config.Config) (string, error) {
	if f.base == "" {
		if _, port, err := net.SplitHostPort(cfg.Listen.Address); err == nil && port == "0" {
			return "", &usageError{"the configuration leaves the port to the system: give the daemon's address with --url"}
		}
		return baseURL(cfg, cfg.Listen.Address), nil
	}
	u, err := url.Parse(f.base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", &usageError{fmt.Sprintf("--url %q is not scheme, host and port, as in http://127.0.0.1:8080", f.base)}
	}
	return u.Scheme + "://" + u.Host, nil
}

// request makes the callback that file is a sample of.
func (f *sampleFlags) request(cmd *cobra.Command, source *config.Source, base, file string) (*http.Request, error) {
	body, err := readInput(cmd.Context(), cmd.InOrStdin(), file, maxSampleSize)
	if err != nil {
		return nil, fmt.Errorf("sample: %w", err)
	}
	sample := ingest.Sample{Body: body, Query: url.Values{}, Header: http.Header{}, Now: time.Now()}
	for _, q := range f.query {
		name, value, ok := strings.Cut(q, "=")
		if !ok || name == "" {
			return nil, &usageError{fmt.Sprintf("--query %q is not NAME=VALUE", q)}
		}
		sample.Query.Add(name, value)
	}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, &usageError{fmt.Sprintf("--header %q is not 'Name: value'", h)}
		}
		sample.Header.Add(name, strings.TrimSpace(value))
	}
	return ingest.NewRequest(cmd.Context(), core.SourceSettings(source), base, sample)
}

func send(w io.Writer, client *http.Client, request *http.Request, file string) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(request.Context(), sendTimeout)
	defer cancel()
	response, err := client.Do(request.WithContext(ctx))
	if err != nil {
		var u *url.Error // its text has the whole URL, with the signature
		if errors.As(err, &u) {
			err = u.Err
		}
		return false, fmt.Errorf("send %s to %s://%s: %w", file, request.URL.Scheme, request.URL.Host, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return false, fmt.Errorf("read the answer to %s: %w", file, err)
	}
	_, err = fmt.Fprintf(w, "%s: %s %s\n", file, response.Status, visible(string(bytes.TrimSpace(answer))))
	return response.StatusCode/100 == 2, err
}

// sendClient trusts what the daemon shows, besides the usual authorities: its
// certificate may be one that nobody else knows.
func sendClient(cfg *config.Config) (*http.Client, error) {
	transport := &http.Transport{Proxy: nil}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cfg.Listen.TLS == nil {
		return client, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	certificate, err := os.ReadFile(cfg.Listen.TLS.CertFile)
	if err != nil {
		return nil, fmt.Errorf("the daemon's certificate: %w", err)
	}
	roots.AppendCertsFromPEM(certificate)
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return client, nil
}

// findSource returns the source with the name; with none, the only one.
func findSource(cfg *config.Config, name string) (*config.Source, error) {
	names := make([]string, 0, len(cfg.Sources))
	for i := range cfg.Sources {
		s := &cfg.Sources[i]
		if s.Name == name || name == "" && len(cfg.Sources) == 1 {
			return s, nil
		}
		names = append(names, s.Name)
	}
	switch {
	case len(names) == 0:
		return nil, errors.New("the configuration has no source")
	case name == "":
		return nil, &usageError{"the configuration has several sources, choose one with --source: " + strings.Join(names, ", ")}
	}
	return nil, &usageError{fmt.Sprintf("the configuration has no source %q, only %s", name, strings.Join(names, ", "))}
}
