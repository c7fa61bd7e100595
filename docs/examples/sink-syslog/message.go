package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/callbackd/callbackd/plugins/sink"
)

// format makes syslog messages (RFC 5424) of events.
type format struct {
	priority   int
	hostname   string
	appName    string
	text       sink.PerEvent[string]
	maxMessage int
}

func newFormat(cfg Config) format {
	// Facilities have numbers, from 0; those that programs other than the system's
	// own do not use are left out.
	facilities := []string{
		1: "user", 3: "daemon", 4: "auth", 10: "authpriv",
		16: "local0", 17: "local1", 18: "local2", 19: "local3", 20: "local4", 21: "local5", 22: "local6", 23: "local7",
	}
	severities := []string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
	hostname, _ := os.Hostname() // "-" where it is not known
	return format{
		priority:   slices.Index(facilities, cfg.Facility)*8 + slices.Index(severities, cfg.Severity),
		hostname:   visible(hostname, 255),
		appName:    cfg.AppName,
		text:       cfg.Message,
		maxMessage: int(cfg.MaxMessage),
	}
}

// frame is the message of an event with its length before it (RFC 6587, 3.4.1).
func (f format) frame(ev sink.Event) ([]byte, error) {
	text, ok := f.text.Get(ev)
	if !ok {
		text = string(ev.Body)
	}
	if len(text) > f.maxMessage {
		return nil, fmt.Errorf("the text has %d bytes, and max_message is %d", len(text), f.maxMessage)
	}
	// The number behind the @ is one for examples (RFC 5612): put your own there.
	message := fmt.Sprintf(`<%d>1 %s %s %s - %s [callbackd@32473 delivery="%s" source="%s" type="%s" subject="%s"] %s`,
		f.priority, timestamp(ev.Time), f.hostname, f.appName, visible(ev.Type, 32),
		quoted(ev.DeliveryID), quoted(ev.Source), quoted(ev.Type), quoted(ev.Subject), plain(text))
	if len(message) > f.maxMessage {
		return nil, fmt.Errorf("the message has %d bytes, and max_message is %d", len(message), f.maxMessage)
	}
	return fmt.Appendf(nil, "%d %s", len(message), message), nil
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
}

// visible returns s if it can stand in the header of a message, and else "-".
func visible(s string, most int) string {
	hidden := func(r rune) bool { return r <= ' ' || r > '~' }
	if s == "" || len(s) > most || strings.ContainsFunc(s, hidden) {
		return "-"
	}
	return s
}

// plain replaces control characters, as #012 for a line feed: most servers write
// a line for each message, and a sender must not be able to begin one.
func plain(s string) string {
	var out strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			fmt.Fprintf(&out, "#%03o", r)
		} else {
			out.WriteRune(r)
		}
	}
	return out.String()
}

// quoted is plain text for between the quotes of structured data.
func quoted(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(plain(s))
}
