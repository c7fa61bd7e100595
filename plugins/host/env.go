package host

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// passedOn are the variables of the daemon that plugins get. PATH and HOME are
// not among them, and neither is anything that may be a credential.
func passedOn() []string {
	return []string{
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
		"http_proxy", "https_proxy", "no_proxy", "all_proxy",
		"SSL_CERT_FILE", "SSL_CERT_DIR",
		"TZ", "LANG", "LC_ALL", "TMPDIR",
	}
}

// pluginEnv is the whole environment of a plugin. Later entries win: what the
// protocol needs cannot be overridden by the configuration.
func pluginEnv(lookup func(string) (string, bool), extra, protocol []string) []string {
	var env []string
	for _, name := range passedOn() {
		if value, ok := lookup(name); ok {
			env = append(env, name+"="+value)
		}
	}
	env = append(env, extra...)
	env = append(env, protocol...)

	last := make(map[string]int, len(env))
	for i, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		last[name] = i
	}
	out := env[:0]
	for i, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); last[name] == i {
			out = append(out, kv)
		}
	}
	return out
}

// memoryEnv tells a program in Go to collect its garbage in time where its memory
// is limited.
func memoryEnv(opts *Options) []string {
	if opts.MaxMemory == 0 {
		return nil
	}
	return []string{fmt.Sprintf("GOMEMLIMIT=%d", opts.MaxMemory/4*3)}
}

// logLevel is the lowest level that the logger takes: a plugin need not write
// what nobody reads.
func logLevel(logger *slog.Logger) string {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if logger.Enabled(context.Background(), level) {
			return level.String()
		}
	}
	return slog.LevelError.String()
}
