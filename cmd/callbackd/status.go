package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/spf13/cobra"
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
	for _, k := range s.NotConfigured {
		fmt.Fprintf(&text, "\n%s: not configured: %d deliveries wait for it to come back, or to be redriven or discarded (callbackd deadletter … --orphans); %d dead letters\n",
			k.Name, k.Pending+k.InFlight+k.Delayed, k.DeadLetters)
	}
	for i := range s.Sinks {
		k := &s.Sinks[i]
		for _, t := range []struct{ what, text string }{{"left alone", leftAlone(k, now)}, {"unwell", k.Unwell}, {"last error", k.LastError}} {
			if t.text != "" {
				fmt.Fprintf(&text, "\n%s: %s: %s\n", k.Name, t.what, t.text)
			}
		}
	}
	return text.String()
}

// leftAlone says why a sink gets no deliveries, or few, though its process works.
func leftAlone(k *admin.SinkStatus, now time.Time) string {
	switch {
	case k.Breaker == "open" || k.Breaker == "half_open":
		return fmt.Sprintf("the breaker is %s since %s: nearly all attempts failed", strings.ReplaceAll(k.Breaker, "_", " "), age(now.Sub(k.BreakerSince)))
	case k.PausedUntil.After(now):
		return fmt.Sprintf("the receiver asked for a pause of another %s", age(k.PausedUntil.Sub(now)))
	case k.Ramp > 0:
		return fmt.Sprintf("it came back a moment ago: at most %d deliveries at a time, and more as they succeed", k.Ramp)
	}
	return ""
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
