package main

import (
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
	"strings"
	"text/tabwriter"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/spf13/cobra"
)

const (
	// adminURLEnv names the environment variable that stands in for --admin, so that a
	// password need not be typed.
	adminURLEnv  = "CALLBACKD_ADMIN_URL"
	adminTimeout = 10 * time.Second
	// maxAdminAnswer bounds what is read of an answer.
	maxAdminAnswer = 64 << 20
)

func newStatus() *cobra.Command {
	var client adminClient
	asJSON := false
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running daemon and each of its sinks are doing",
		Long: `Show what the running daemon and each of its sinks are doing: the state of the
sink's process, how it is run, and what waits for it.

The daemon is asked at the admin address of the configuration, or at --admin URL
(or ` + adminURLEnv + `), which may hold a user and a password:
https://USER:PASSWORD@HOST:PORT. Exits with 1 when the daemon does not answer or
is not ready.`,
		Args: noArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			var status admin.Status
			if err := client.get(cmd, "/api/v1/status", &status); err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetEscapeHTML(false)
				encoder.SetIndent("", "  ")
				if err := encoder.Encode(status); err != nil {
					return err
				}
			} else if _, err := io.WriteString(cmd.OutOrStdout(), visible(statusText(&status, time.Now()))); err != nil {
				return err
			}
			if !status.Ready {
				return errSaid
			}
			return nil
		}),
	}
	client.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// adminClient talks to the admin address of a running daemon.
type adminClient struct {
	config, url, caFile string
}

func (c *adminClient) flags(cmd *cobra.Command) {
	configFlag(cmd, &c.config)
	cmd.Flags().StringVar(&c.url, "admin", "", "the URL of the admin address, where it is not the configuration's")
	cmd.Flags().StringVar(&c.caFile, "ca-file", "", "a file with certificates in PEM that the daemon's is checked against")
}

// get asks for path and decodes the answer.
func (c *adminClient) get(cmd *cobra.Command, path string, into any) error {
	base, err := c.base(cmd)
	if err != nil {
		return err
	}
	transport, err := c.transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(cmd.Context(), adminTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(path).String(), nil)
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
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%s asks for a user and a password: give them with --admin or %s", base.Redacted(), adminURLEnv)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %s: %s", base.Redacted(), resp.Status, strings.TrimSpace(string(body[:min(len(body), 500)])))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("what answers at %s is no callbackd of this kind: %w", base.Redacted(), err)
	}
	return nil
}

// base is the URL of the admin address.
func (c *adminClient) base(cmd *cobra.Command) (*url.URL, error) {
	text := cmp.Or(c.url, os.Getenv(adminURLEnv))
	if text == "" {
		cfg, diagnostics, err := readConfig(c.config)
		if err != nil {
			return nil, err
		}
		if diagnostics.HasErrors() {
			tell(cmd, diagnostics)
			return nil, errors.New("the admin address is not known, because the configuration has mistakes: give it with --admin URL")
		}
		if cfg.Admin.WebConfigFile != "" {
			return nil, fmt.Errorf("the admin address has TLS or a password of its own (web_config_file): give its URL with --admin or %s", adminURLEnv)
		}
		text = "http://" + reachable(cfg.Admin.Address)
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

// statusText is the status for people.
func statusText(s *admin.Status, now time.Time) string {
	var text strings.Builder
	ready := "ready"
	if !s.Ready {
		ready = "NOT READY"
	}
	fmt.Fprintf(&text, "callbackd %s, up %s, %s\n", s.Version, age(now.Sub(s.Started)), ready)
	for _, why := range s.NotReady {
		fmt.Fprintf(&text, "  %s\n", why)
	}
	fmt.Fprintf(&text, "queue: %s of %s\n\n", bytesText(s.Queue.Bytes), bytesText(s.Queue.LimitBytes))
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SINK\tTYPE\tSTATE\tSINCE\tRESTARTS\tPENDING\tIN FLIGHT\tDELAYED\tDEAD\tOLDEST\tPLUGIN")
	for i := range s.Sinks {
		k := &s.Sinks[i]
		oldest := "-"
		if k.OldestPendingSeconds > 0 {
			oldest = age(time.Duration(k.OldestPendingSeconds * float64(time.Second)))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", k.Name, k.Type, k.State, age(now.Sub(k.Since)),
			k.Restarts, k.Pending, k.InFlight, k.Delayed, k.DeadLetters, oldest, pluginText(k))
	}
	_ = table.Flush() // into a Builder
	for i := range s.Sinks {
		k := &s.Sinks[i]
		for _, t := range []struct{ what, text string }{{"unwell", k.Unwell}, {"last error", k.LastError}} {
			if t.text != "" {
				fmt.Fprintf(&text, "\n%s: %s: %s\n", k.Name, t.what, t.text)
			}
		}
	}
	return text.String()
}

// pluginText says how the plugin is run.
func pluginText(k *admin.SinkStatus) string {
	words := []string{"not pinned"}
	if k.Pinned {
		words[0] = "pinned"
	}
	if !k.TLS {
		words = append(words, "no TLS")
	}
	if k.User != "" {
		words = append(words, "as "+k.User)
	}
	if k.PID != 0 {
		words = append(words, fmt.Sprintf("pid %d", k.PID))
	}
	return strings.TrimSpace(k.Plugin+" "+k.PluginVersion) + " (" + strings.Join(words, ", ") + ")"
}

// age is a time span in its one or two largest units.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// bytesText is a size in its largest unit.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 || value == float64(int64(value)) {
		return fmt.Sprintf("%.0f %s", value, units[unit])
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
