package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/callbackd/callbackd/core"
	"github.com/callbackd/callbackd/core/config"
	"github.com/spf13/cobra"
)

func newRun() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `Run the daemon until SIGTERM or SIGINT: then it takes no more callbacks, finishes
what is in flight within shutdown_grace, closes the plugins, and exits with 0.
SIGINT during that ends it at once, with 1: what was answered is on disk all the
same. SIGHUP reloads the configuration, as callbackd reload does.`,
		Args: noArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, path)
			if err != nil {
				return err
			}
			setUpRuntime()
			logger := newLogger(cmd.ErrOrStderr(), cfg.Log)
			daemon, err := core.New(cmd.Context(), cfg, func() (*config.Config, config.Diagnostics, error) { return readConfig(path) }, build(), logger)
			switch {
			case cmd.Context().Err() != nil && errors.Is(err, context.Canceled):
				return nil // a stop before anything was begun
			case err != nil:
				return err
			}
			defer reloadOnSignal(cmd.Context(), daemon)()
			err = daemon.Run(cmd.Context(), func() { greet(cmd.OutOrStdout(), path, cfg, daemon) })
			var wrong config.Diagnostics
			if errors.As(err, &wrong) {
				tell(cmd, wrong)
				return errSaid
			}
			return err
		}),
	}
	configFlag(cmd, &path)
	return cmd
}

// reloadOnSignal reloads the configuration at each SIGHUP, until it is told to end.
// The daemon logs what came of it. Signals during a reload make one more.
func reloadOnSignal(ctx context.Context, daemon *core.Daemon) (end func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-hangups:
				_, _ = daemon.Reload(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		cancel()
		<-done
	}
}

func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // config has checked it
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// greet says where the daemon listens and how to try it.
func greet(w io.Writer, path string, cfg *config.Config, daemon *core.Daemon) {
	var b strings.Builder
	base := baseURL(cfg, daemon.Addr().String())
	fmt.Fprintf(&b, "callbackd %s takes callbacks\n", version)
	for _, s := range cfg.Sources {
		fmt.Fprintf(&b, "  callbacks   %s%s  (source %q)\n", base, (&url.URL{Path: s.Path}).EscapedPath(), s.Name)
	}
	admin := reachable(daemon.AdminAddr().String())
	if cfg.Admin.WebConfigFile == "" {
		fmt.Fprintf(&b, "  metrics     http://%s/metrics\n", admin)
	} else {
		fmt.Fprintf(&b, "  metrics     %s, TLS and users as %s says\n", admin, cfg.Admin.WebConfigFile)
	}
	if len(cfg.Sources) > 0 {
		fmt.Fprintf(&b, "try it:\n  %s\n", try(&cfg.Sources[0], base, path))
	}
	_, _ = io.WriteString(w, b.String())
}

// try is a command that sends a callback to the source.
func try(s *config.Source, base, path string) string {
	address := base + (&url.URL{Path: s.Path}).EscapedPath()
	body := `{"hello":"world"}`
	if s.Tencent != nil {
		body = `{"CallbackCommand":"Group.CallbackAfterGroupInfoChanged","GroupId":"@TGS#1","Type":"Public","Name":"hello"}`
	}
	switch {
	case s.HMAC != nil || s.Tencent != nil && len(s.Tencent.Tokens) > 0 || strings.HasPrefix(base, "https:"):
		return fmt.Sprintf(`echo '%s' | callbackd send --config '%s' --url %s --source %s -`, body, strings.ReplaceAll(path, `'`, `'\''`), base, s.Name)
	case s.Tencent != nil:
		return fmt.Sprintf(`curl '%s?SdkAppid=%d&CallbackCommand=Group.CallbackAfterGroupInfoChanged' -H 'Content-Type: application/json' -d '%s'`, address, s.Tencent.SDKAppIDs[0], body)
	}
	return fmt.Sprintf(`curl '%s' -H 'Content-Type: application/json' -d '%s'`, address, body)
}

// baseURL is the scheme, host and port that callbacks are sent to.
func baseURL(cfg *config.Config, address string) string {
	scheme := "http"
	if cfg.Listen.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + reachable(address)
}

// reachable makes of an address to listen at one to connect to.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
