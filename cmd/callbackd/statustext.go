package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/callbackd/callbackd/core/admin"
)

// statusText is the status for people.
func statusText(s *admin.Status, now time.Time) string {
	var text strings.Builder
	ready := "ready"
	if !s.Ready {
		ready = "NOT READY"
	}
	fmt.Fprintf(&text, "callbackd %s, up %s, %s\n", s.Version, age(now.Sub(s.Started)), ready)
	for _, why := range s.NotReady {
		fmt.Fprintf(&text, "  %s\n", oneLine(why))
	}
	for i := range s.Refusing {
		text.WriteString(refusingText(&s.Refusing[i], now))
	}
	fmt.Fprintf(&text, "queue: %s of %s\n\n", bytesText(s.Queue.Bytes), bytesText(s.Queue.LimitBytes))
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SINK\tTYPE\tSTATE\tSINCE\tRESTARTS\tPENDING\tIN FLIGHT\tDELAYED\tDEAD\tOLDEST\tBACKLOG\tPLUGIN")
	for i := range s.Sinks {
		k := &s.Sinks[i]
		oldest := "-"
		if k.OldestPendingSeconds > 0 {
			oldest = age(time.Duration(k.OldestPendingSeconds * float64(time.Second)))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", k.Name, k.Type, k.State, age(now.Sub(k.Since)),
			k.Restarts, k.Pending, k.InFlight, k.Delayed, k.DeadLetters, oldest, backlogText(k), pluginText(k))
	}
	_ = table.Flush() // into a Builder
	for i := range s.NotConfigured {
		text.WriteString(notConfiguredText(&s.NotConfigured[i]))
	}
	for i := range s.Sinks {
		for _, note := range sinkNotes(&s.Sinks[i], now) {
			fmt.Fprintf(&text, "\n%s: %s\n", s.Sinks[i].Name, oneLine(note))
		}
	}
	return text.String()
}

// refusingText says why callbacks are refused.
func refusingText(r *admin.Refusing, now time.Time) string {
	last := ""
	if ago := now.Sub(r.Last); ago >= time.Second {
		last = fmt.Sprintf(" (the last one %s ago)", age(ago))
	}
	return fmt.Sprintf("callbacks are refused with 503 since %s%s: %s\n", age(now.Sub(r.Since)), last, r.Reason)
}

// notConfiguredText says what is kept for a sink that has left the configuration, and
// what to do with it.
func notConfiguredText(k *admin.NotConfiguredSink) string {
	var text strings.Builder
	fmt.Fprintf(&text, "\n%s: not configured: %s; %s\n", k.Name,
		counted(k.Pending+k.InFlight+k.Delayed, "delivery waits for it to come back", "deliveries wait for it to come back"),
		plural(k.DeadLetters, "dead letter"))
	if k.Pending+k.InFlight+k.Delayed > 0 {
		fmt.Fprintf(&text, "  to move them: callbackd deadletter redrive --orphans --sink %s --to SINK\n", k.Name)
		fmt.Fprintf(&text, "  to discard them: callbackd deadletter discard --orphans --sink %s --yes\n", k.Name)
	}
	if k.DeadLetters > 0 {
		fmt.Fprintf(&text, "  to look at its dead letters: callbackd deadletter list --sink %s\n", k.Name)
	}
	return text.String()
}

// sinkNotes is what the table does not say of a sink, a sentence each.
func sinkNotes(k *admin.SinkStatus, now time.Time) []string {
	var notes []string
	add := func(format string, a ...any) { notes = append(notes, fmt.Sprintf(format, a...)) }
	switch {
	case k.Breaker == "open" || k.Breaker == "half_open":
		doing := "tried now with a few deliveries"
		if k.Breaker == "open" {
			doing = "tried " + until(k.NextTry, now)
		}
		add("left alone: the breaker is %s since %s, as nearly all attempts failed; %s",
			strings.ReplaceAll(k.Breaker, "_", " "), age(now.Sub(k.BreakerSince)), doing)
	case k.PausedUntil.After(now):
		add("left alone: the receiver asked for a pause of another %s", age(k.PausedUntil.Sub(now)))
	case k.Ramp > 0:
		add("came back a moment ago: gets at most %s for now, and more as they succeed", counted(int64(k.Ramp), "delivery at a time", "deliveries at a time"))
	}
	if k.RateLimited {
		add("held to %s by rate_limit", rateText(k.RateLimit))
	}
	if f := k.LastFailure; f != nil {
		next := ""
		if k.NextTry.After(now) && k.Breaker != "open" {
			next = ", tried " + until(k.NextTry, now)
		}
		add("last delivery error %s ago: %s (failing since %s%s)", age(now.Sub(f.At)), f.Error, age(now.Sub(f.FailingSince)), next)
	}
	switch n, behind := k.BlockedOrderKeys, k.BehindBlocked; {
	case n == 1:
		add("1 order key is held up by a delivery that is tried again, %s behind it", counted(behind, "waits", "wait"))
	case n > 1:
		add("%d order keys are held up, each by a delivery that is tried again, %s behind them", n, counted(behind, "waits", "wait"))
	}
	if k.MaxBacklogBytes > 0 && k.BacklogBytes >= k.MaxBacklogBytes/10*9 {
		add("the backlog is nearly full, or full: %s", whenFullText(k.WhenFull))
	}
	if k.Unwell != "" {
		add("unwell: %s", k.Unwell)
	}
	switch {
	case k.LastError == "":
	case k.LastErrorAt.IsZero():
		add("last error: %s", k.LastError)
	default:
		add("last error %s ago: %s", age(now.Sub(k.LastErrorAt)), k.LastError)
	}
	return notes
}

// whenFullText says what becomes of what the backlog has no room for.
func whenFullText(whenFull string) string {
	switch whenFull {
	case "refuse":
		return "callbacks with a delivery to it are then refused with 503"
	case "drop_oldest":
		return "its oldest deliveries are then dropped"
	}
	return "what comes then becomes dead letters, reason overflow"
}

// backlogText is what a sink's backlog takes of what it may.
func backlogText(k *admin.SinkStatus) string {
	if k.MaxBacklogBytes <= 0 {
		return bytesText(k.BacklogBytes)
	}
	return fmt.Sprintf("%s of %s (%s)", bytesText(k.BacklogBytes), bytesText(k.MaxBacklogBytes), cmp.Or(k.WhenFull, "dead_letter"))
}

// rateText is a rate in the shortest form: "10/s", "0.5/s".
func rateText(perSecond float64) string { return strconv.FormatFloat(perSecond, 'f', -1, 64) + "/s" }

// until says when something comes.
func until(t, now time.Time) string {
	if t.Sub(now) < time.Second {
		return "again in a moment"
	}
	return "again in " + age(t.Sub(now))
}

// counted is a number of things.
func counted(n int64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
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
