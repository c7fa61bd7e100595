package host

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"
)

// Options say which plugin a Sink runs and within which limits. The zero value
// of each limit is its default; all of them are finite.
type Options struct {
	// Name is the name of the sink: sink "TYPE" "NAME".
	Name string
	// Generation tells one configuration of the sink from the next; it grows
	// with each reload that changes the sink. Default 1.
	Generation uint64
	// Command is the program, an absolute path, with its arguments. PATH is not
	// searched.
	Command []string
	// SHA256 is the pin of the program's file in hex: a file with another
	// content is not run. Empty: not pinned. A pin covers the program's own file,
	// not files named in its arguments, and a script cannot be pinned.
	SHA256 string
	// Env is added to the variables that plugins get, as "NAME=value".
	Env []string
	// DaemonVersion is told to the plugin.
	DaemonVersion string
	// Logger takes what happens to the plugin, and what it logs itself. Nil:
	// slog.Default().
	Logger *slog.Logger
	// Mask hides secrets in text. Everything that comes from the plugin and is
	// meant for people goes through it. It must be safe for concurrent use. Nil:
	// nothing is hidden.
	Mask func(string) string
	// PlainTransport turns off the mutual TLS between daemon and plugin, for
	// plugins in languages that lack it. The socket is private to the user all
	// the same.
	PlainTransport bool
	// User and Group are whom the plugin runs as, a name or a number each. The
	// daemon has to run as root. Empty: as the daemon; a User without a Group
	// runs as the user's own one. Unix.
	User, Group string
	// NoNewPrivs keeps the plugin from gaining privileges by what it executes.
	// Linux.
	NoNewPrivs bool
	// MaxMemory is how many bytes of private memory the plugin may have
	// (RLIMIT_DATA). 0: not limited. Linux.
	MaxMemory int64
	// MaxOpenFiles is how many files, sockets included, the plugin may have open.
	// 0: not limited. Linux.
	MaxOpenFiles int

	// StartTimeout is how long a plugin may take from its start to its
	// handshake, and from there to its first answer. Default 10 s.
	StartTimeout time.Duration
	// DescribeTimeout bounds a Describe call. Default 10 s.
	DescribeTimeout time.Duration
	// ConfigureTimeout bounds a Configure call. Default 30 s.
	ConfigureTimeout time.Duration
	// CheckInterval is the time between two Check calls. Default 10 s.
	CheckInterval time.Duration
	// CheckTimeout bounds a Check call. Default 5 s.
	CheckTimeout time.Duration
	// CheckMisses is how many Check calls in a row must go unanswered for the
	// plugin to be restarted. Default 3.
	CheckMisses int
	// MetricsInterval is the time between two Metrics calls, and until the first. Default 5 s.
	MetricsInterval time.Duration
	// CloseGrace bounds the Close call, in which a plugin finishes what is in
	// flight. Default 10 s. Stopping takes up to 5 s more.
	CloseGrace time.Duration
	// DeliverAllowance is added to a batch's timeout, for the way there and
	// back. Default 1 s.
	DeliverAllowance time.Duration
	// MinBackoff and MaxBackoff bound the wait before a restart, which doubles
	// with each one and starts anew when the plugin ran for HealthyAfter.
	// Defaults 100 ms, 1 min, 1 min.
	MinBackoff, MaxBackoff, HealthyAfter time.Duration

	observer Observer // see Connect
}

func (o Options) withDefaults() Options {
	setDefault(&o.Generation, 1)
	setDefault(&o.StartTimeout, 10*time.Second)
	setDefault(&o.DescribeTimeout, 10*time.Second)
	setDefault(&o.ConfigureTimeout, 30*time.Second)
	setDefault(&o.CheckInterval, 10*time.Second)
	setDefault(&o.CheckTimeout, 5*time.Second)
	setDefault(&o.CheckMisses, 3)
	setDefault(&o.MetricsInterval, 5*time.Second)
	setDefault(&o.CloseGrace, 10*time.Second)
	setDefault(&o.DeliverAllowance, time.Second)
	setDefault(&o.MinBackoff, 100*time.Millisecond)
	setDefault(&o.MaxBackoff, time.Minute)
	setDefault(&o.HealthyAfter, time.Minute)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = o.Logger.With("sink", o.Name)
	if o.Mask == nil {
		o.Mask = func(s string) string { return s }
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check tells what can never work, however often it is tried.
func (o Options) check() error {
	switch {
	case o.Name == "":
		return errors.New("the sink has no name")
	case len(o.Command) == 0 || o.Command[0] == "":
		return errors.New("the plugin has no command")
	case !filepath.IsAbs(o.Command[0]):
		return fmt.Errorf("the plugin's command %q is not an absolute path", o.Command[0])
	}
	for _, arg := range o.Command {
		if strings.ContainsRune(arg, 0) {
			return errors.New("the plugin's command holds a NUL character")
		}
	}
	if o.SHA256 != "" {
		if sum, err := hex.DecodeString(o.SHA256); err != nil || len(sum) != 32 {
			return errors.New("the plugin's sha256 is not 64 hexadecimal digits")
		}
	}
	for _, kv := range o.Env {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" || strings.ContainsRune(kv, 0) {
			// The value may be a secret, so only the name is told.
			return fmt.Errorf("the plugin's environment entry %q is not NAME=value", name)
		}
	}
	if o.MaxMemory < 0 || o.MaxOpenFiles < 0 {
		return errors.New("a limit of the plugin is negative")
	}
	return o.checkSupported()
}

// program is what the plugin is called in messages.
func (o Options) program() string { return filepath.Base(o.Command[0]) }
