package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/event"
	"github.com/spf13/cobra"
)

func newDeadLetter() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deadletter",
		Short: "List, show, redrive and discard dead letters",
		Long: `List, show, redrive and discard dead letters: deliveries that the daemon does not
try again by itself. They are told by the ids of their deliveries, or by a filter.

The running daemon is asked at the admin address of the configuration, or at
--admin URL (or ` + adminURLEnv + `).`,
	}
	cmd.AddCommand(newLetterList(), newLetterShow(), newLetterRedrive(), newLetterDiscard(), newLetterJobs())
	return cmd
}

// letterFilter are the flags that say which dead letters are meant.
type letterFilter struct {
	sink, pipeline, reason, eventType, since, until string
}

func (f *letterFilter) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.sink, "sink", "", "of this sink only")
	flags.StringVar(&f.pipeline, "pipeline", "", "of this pipeline only")
	flags.StringVar(&f.reason, "reason", "", "with this reason only: "+reasons())
	flags.StringVar(&f.eventType, "type", "", "with this type of event only")
	flags.StringVar(&f.since, "since", "", "that died since then: so long ago (90s, 2h, 7d), or RFC 3339")
	flags.StringVar(&f.until, "until", "", "that died before then")
}

func reasons() string {
	var names []string
	for _, r := range event.Reasons() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// values are the filter's parameters, by name, with moments as RFC 3339: what was
// two hours ago must not move while pages are read.
func (f *letterFilter) values(now time.Time) (map[string]string, error) {
	out := make(map[string]string)
	for name, value := range map[string]string{"sink": f.sink, "pipeline": f.pipeline, "reason": f.reason, "type": f.eventType} {
		if value != "" {
			out[name] = value
		}
	}
	if f.reason != "" && !slices.Contains(event.Reasons(), event.Reason(f.reason)) {
		return nil, &usageError{fmt.Sprintf("--reason %q is none, only %s are", f.reason, reasons())}
	}
	for name, text := range map[string]string{"since": f.since, "until": f.until} {
		at, err := admin.ParseMoment(text, now)
		if err != nil {
			return nil, &usageError{fmt.Sprintf("--%s: %s", name, err)}
		}
		if text != "" {
			out[name] = at.Format(time.RFC3339Nano)
		}
	}
	return out, nil
}

func (f *letterFilter) set() bool { return *f != letterFilter{} }

func toQuery(values map[string]string) url.Values {
	out := make(url.Values, len(values))
	for name, value := range values {
		out.Set(name, value)
	}
	return out
}

// checkIDs refuses what can be no id, before it becomes a part of a path.
func checkIDs(ids []string) error {
	for _, id := range ids {
		if id == "" || strings.ContainsFunc(id, func(r rune) bool {
			return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) {
			return &usageError{fmt.Sprintf("%q is no id; callbackd deadletter list and callbackd deadletter jobs tell them", id)}
		}
	}
	return nil
}
