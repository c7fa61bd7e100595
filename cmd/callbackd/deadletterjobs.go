package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/redrive"
	"github.com/spf13/cobra"
)

const (
	// askJobEvery is how often a job is asked for while it is followed, tellJobEvery
	// how often its progress is told where the output is no terminal.
	askJobEvery  = 300 * time.Millisecond
	tellJobEvery = 10 * time.Second
	// missJob is how long a daemon may be away that is followed: it may be starting
	// again, and the job goes on.
	missJob = time.Minute
)

func newLetterJobs() *cobra.Command {
	var client adminClient
	var cancel, wait, asJSON bool
	cmd := &cobra.Command{
		Use:   "jobs [ID]",
		Short: "Show, follow or cancel the jobs that redrive and discard",
		Long: `Show the jobs that redrive and discard, the latest first, or the one with the ID.
With --wait it is followed until it has ended; with --cancel it is ended: what it
has done stays done. Jobs that have ended are kept for 7 days, at most 100 of them.

Exits with 1 when a job that is waited for was cancelled or has failed.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Sprintf("%s takes one ID, but was given %d", path(cmd), len(args))}
			}
			return checkIDs(args)
		},
		RunE: command(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				if cancel || wait {
					return &usageError{"--cancel and --wait need the ID of a job"}
				}
				return listJobs(cmd, &client, asJSON)
			}
			if cancel && wait {
				return &usageError{"--cancel and --wait exclude each other"}
			}
			ask := adminCall{method: http.MethodGet, path: "/api/v1/jobs/" + args[0]}
			if cancel {
				ask = adminCall{method: http.MethodPost, path: ask.path + "/cancel"}
			}
			var job redrive.Job
			if err := client.call(cmd, ask, &job); err != nil {
				return err
			}
			if wait {
				return followJob(cmd, &client, job, asJSON)
			}
			return printJob(cmd, &job, asJSON)
		}),
	}
	client.flags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&cancel, "cancel", false, "end the job")
	flags.BoolVar(&wait, "wait", false, "show how far the job is, until it has ended")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func listJobs(cmd *cobra.Command, client *adminClient, asJSON bool) error {
	var list admin.JobList
	if err := client.get(cmd, "/api/v1/jobs", &list); err != nil {
		return err
	}
	var text string
	var err error
	switch {
	case asJSON:
		if text, err = indentJSON(list); err != nil {
			return err
		}
	case len(list.Jobs) == 0:
		cmd.PrintErrln("There are no jobs.")
	default:
		var b strings.Builder
		now := time.Now()
		table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "ID\tKIND\tCREATED\tSTATE\tDONE\tFOUND\tRATE\tOF")
		for i := range list.Jobs {
			j := &list.Jobs[i]
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s ago\t%s\t%d\t%d\t%.0f/s\t%s\n", j.ID, j.Kind, age(now.Sub(j.Created)), j.State, j.Done, j.Found, j.Rate, oneLine(jobOf(j)))
		}
		_ = table.Flush() // into a Builder
		text = b.String()
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// jobOf says of what a job is, in the words of the flags.
func jobOf(j *redrive.Job) string {
	words := []string{"all"}
	if j.Orphans {
		words[0] = "orphans"
	}
	moment := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.Format(time.RFC3339)
	}
	for _, w := range []struct{ name, value string }{
		{"sink", j.Filter.Sink},
		{"pipeline", j.Filter.Pipeline},
		{"reason", string(j.Filter.Reason)},
		{"type", j.Filter.Type},
		{"since", moment(j.Filter.Since)},
		{"until", moment(j.Filter.Until)},
		{"to", j.To},
	} {
		if w.value != "" {
			words = append(words, w.name+" "+w.value)
		}
	}
	return strings.Join(words, ", ")
}

// printJob prints a job, and fails where the job did not do what it should.
func printJob(cmd *cobra.Command, j *redrive.Job, asJSON bool) error {
	text := jobText(j)
	if asJSON {
		var err error
		if text, err = indentJSON(j); err != nil {
			return err
		}
	}
	_, err := io.WriteString(cmd.OutOrStdout(), text)
	return err
}

func jobText(j *redrive.Job) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", name, oneLine(fmt.Sprintf(format, args...)))
	}
	line("job", "%s", j.ID)
	line("kind", "%s of %s", j.Kind, jobOf(j))
	line("state", "%s", j.State)
	if j.WaitsFor != "" {
		line("waits for", "%s", j.WaitsFor)
	}
	line(past(j.Kind), "%d of %d found, of about %d", j.Done, j.Found, j.TotalEstimate)
	line("rate", "%.0f/s", j.Rate)
	line("created", "%s", j.Created.Format(time.RFC3339))
	if !j.Ended.IsZero() {
		line("ended", "%s", j.Ended.Format(time.RFC3339))
	}
	if len(j.Skipped) > 0 {
		line("left", "those of sinks that are not configured: %s", strings.Join(j.Skipped, ", "))
	}
	if j.LastError != "" {
		line("error", "%s", j.LastError)
	}
	return b.String()
}

// followJob shows how far a job is, until it has ended.
func followJob(cmd *cobra.Command, client *adminClient, job redrive.Job, asJSON bool) error {
	show := newJobProgress(cmd)
	tick := time.NewTicker(askJobEvery)
	defer tick.Stop()
	seen, told := time.Now(), false
	for !job.State.Ended() {
		if !told {
			show.tell(&job)
		}
		select {
		case <-cmd.Context().Done():
		case <-tick.C:
		}
		var now redrive.Job
		err := client.get(cmd, "/api/v1/jobs/"+job.ID, &now)
		switch {
		case cmd.Context().Err() != nil:
			show.end()
			cmd.PrintErrf("Interrupted. The job goes on: see callbackd deadletter jobs %s, which can also --wait for it or --cancel it.\n", job.ID)
			return errSaid
		case err == nil:
			job, seen, told = now, time.Now(), false
		case time.Since(seen) > missJob || errors.Is(err, context.Canceled):
			show.end()
			return fmt.Errorf("job %s cannot be seen any more: %w; it goes on when the daemon does: callbackd deadletter jobs %s --wait", job.ID, err, job.ID)
		default:
			show.say(fmt.Sprintf("job %s: the daemon does not answer, waiting for it", job.ID), "no answer")
			told = true
		}
	}
	show.end()
	if err := printJob(cmd, &job, asJSON); err != nil {
		return err
	}
	if job.State != redrive.Done {
		return errSaid
	}
	return nil
}

// jobProgress tells people how far a job is.
type jobProgress struct {
	cmd      *cobra.Command
	terminal bool
	told     time.Time
	last     string
	width    int
}

func newJobProgress(cmd *cobra.Command) *jobProgress {
	return &jobProgress{cmd: cmd, terminal: colorful(cmd.ErrOrStderr())}
}

func (p *jobProgress) tell(j *redrive.Job) {
	text := fmt.Sprintf("job %s: %d of about %d %s, %.0f/s", j.ID, j.Done, j.TotalEstimate, past(j.Kind), j.Rate)
	state := string(j.State)
	if j.State == redrive.Waiting {
		state = oneLine("waiting for " + j.WaitsFor)
		text = fmt.Sprintf("job %s: %d of about %d %s, %s", j.ID, j.Done, j.TotalEstimate, past(j.Kind), state)
	}
	p.say(text, state)
}

// say shows a text: on a terminal at once, elsewhere when the state has changed, or
// after some time.
func (p *jobProgress) say(text, state string) {
	switch {
	case p.terminal:
		p.cmd.PrintErrf("\r%-*s", p.width, text)
		p.width = len(text)
	case state != p.last || time.Since(p.told) > tellJobEvery:
		p.cmd.PrintErrln(text)
		p.told, p.last = time.Now(), state
	}
}

// end clears what is on the terminal.
func (p *jobProgress) end() {
	if p.terminal && p.width > 0 {
		p.cmd.PrintErrf("\r%-*s\r", p.width, "")
	}
}
