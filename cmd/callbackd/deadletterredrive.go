package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/redrive"
	"github.com/spf13/cobra"
)

// letterAction is what redrive and discard have in common.
type letterAction struct {
	client    adminClient
	filter    letterFilter
	all       bool
	orphans   bool
	to        string
	perSecond int
	detach    bool
	yes       bool
	asJSON    bool
}

func newLetterRedrive() *cobra.Command {
	a := &letterAction{}
	cmd := &cobra.Command{
		Use:   "redrive [ID]...",
		Short: "Put dead letters back to pending",
		Long: `Put dead letters back to pending, with no attempts and no age: those with the IDs
at once, or all that the filter lets through (--all) by a job of the daemon, which
takes only what died before. The command shows how far the job is, until it is
done. It goes on when the command is interrupted, and after a restart of the daemon.

With --to they go to another sink, as new deliveries with ids of their own.
--orphans takes, instead of dead letters, the deliveries that wait for a sink that
is not in the configuration any more; it needs --to.

Exits with 1 when something was not found or not redriven.`,
		Example: `  callbackd deadletter redrive --all --sink crm --reason expired
  callbackd deadletter redrive --all --sink old-crm --to crm
  callbackd deadletter redrive --orphans --sink old-crm --to crm`,
		RunE: command(func(cmd *cobra.Command, ids []string) error { return a.run(cmd, redrive.Redrive, ids) }),
	}
	a.register(cmd)
	cmd.Flags().StringVar(&a.to, "to", "", "redrive to this sink instead of their own")
	return cmd
}

func newLetterDiscard() *cobra.Command {
	a := &letterAction{}
	cmd := &cobra.Command{
		Use:   "discard [ID]...",
		Short: "Remove dead letters for good",
		Long: `Remove dead letters for good: those with the IDs at once, or all that the filter
lets through (--all) by a job of the daemon, as redrive does. For --all, you are
asked whether you are sure, unless --yes is given.

--orphans takes, instead of dead letters, the deliveries that wait for a sink that
is not in the configuration any more.

Exits with 1 when something was not found or not discarded.`,
		Example: `  callbackd deadletter discard --all --sink crm --until 7d
  callbackd deadletter discard --orphans --sink old-crm --yes`,
		RunE: command(func(cmd *cobra.Command, ids []string) error { return a.run(cmd, redrive.Discard, ids) }),
	}
	a.register(cmd)
	cmd.Flags().BoolVar(&a.yes, "yes", false, "do not ask whether you are sure")
	return cmd
}

func (a *letterAction) register(cmd *cobra.Command) {
	a.client.flags(cmd)
	a.filter.register(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&a.all, "all", false, "all that the filter lets through, by a job")
	flags.BoolVar(&a.orphans, "orphans", false, "the deliveries that wait for a sink that is not configured, by a job")
	flags.IntVar(&a.perSecond, "per-second", redrive.DefaultPerSecond, "how many a second; 0: as fast as the queue takes it")
	flags.BoolVar(&a.detach, "detach", false, "print the id of the job, and leave it to itself")
	flags.BoolVar(&a.asJSON, "json", false, "print JSON")
}

// check refuses what does not go together.
func (a *letterAction) check(cmd *cobra.Command, ids []string) error {
	job := a.all || a.orphans
	switch {
	case len(ids) == 0 && !job && a.filter.set():
		return &usageError{"add --all for all that the filter lets through"}
	case len(ids) == 0 && !job:
		return &usageError{path(cmd) + " needs the IDs of dead letters, or --all"}
	case len(ids) > 0 && (job || a.filter.set() || a.detach || a.yes || cmd.Flags().Changed("per-second")):
		return &usageError{"IDs are done as they are, at once: leave out the other flags, or the IDs"}
	case len(ids) > redrive.MaxIDs:
		return &usageError{fmt.Sprintf("%d IDs are too many, %d are possible", len(ids), redrive.MaxIDs)}
	case a.orphans && a.filter != letterFilter{sink: a.filter.sink}:
		return &usageError{"--orphans can be narrowed by --sink only"}
	}
	return checkIDs(ids)
}

func (a *letterAction) run(cmd *cobra.Command, kind redrive.Kind, ids []string) error {
	if err := a.check(cmd, ids); err != nil {
		return err
	}
	path := "/api/v1/deadletters/" + string(kind)
	if len(ids) > 0 {
		body := map[string]any{"ids": ids}
		if a.to != "" {
			body["to"] = a.to
		}
		return a.now(cmd, kind, adminCall{method: http.MethodPost, path: path, body: body})
	}
	values, err := a.filter.values(time.Now())
	if err != nil {
		return err
	}
	if kind == redrive.Discard && !a.yes {
		if err := a.sure(cmd, values); err != nil {
			return err
		}
	}
	body := map[string]any{"all": true, "filter": values, "orphans": a.orphans, "to": a.to, "per_second": a.perSecond}
	var job redrive.Job
	if err := a.client.call(cmd, adminCall{method: http.MethodPost, path: path, body: body}, &job); err != nil {
		return err
	}
	if !a.detach {
		return followJob(cmd, &a.client, job, a.asJSON)
	}
	text := job.ID + "\n"
	if a.asJSON {
		if text, err = indentJSON(job); err != nil {
			return err
		}
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// now does what is named by ids.
func (a *letterAction) now(cmd *cobra.Command, kind redrive.Kind, ask adminCall) error {
	var answer redrive.Answer
	if err := a.client.call(cmd, ask, &answer); err != nil {
		return err
	}
	text := fmt.Sprintf("%s: %d of %d\n", past(kind), answer.Done, answer.Found+len(answer.Missing))
	if a.asJSON {
		var err error
		if text, err = indentJSON(answer); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(cmd.OutOrStdout(), text); err != nil {
		return err
	}
	for _, id := range answer.Missing {
		cmd.PrintErrf("%s is the id of no dead letter, or not any more\n", id)
	}
	if answer.Stopped != "" {
		cmd.PrintErrf("not all were %s: %s\n", past(kind), visible(answer.Stopped))
	}
	if len(answer.Missing) > 0 || answer.Done < answer.Found {
		return errSaid
	}
	return nil
}

func past(kind redrive.Kind) string {
	if kind == redrive.Discard {
		return "discarded"
	}
	return "redriven"
}

// sure asks whether all of them are to be discarded.
func (a *letterAction) sure(cmd *cobra.Command, values map[string]string) error {
	var what string
	if a.orphans {
		var status admin.Status
		if err := a.client.get(cmd, "/api/v1/status", &status); err != nil {
			return err
		}
		var n int64
		for _, s := range status.NotConfigured {
			if a.filter.sink == "" || a.filter.sink == s.Name {
				n += s.Pending + s.InFlight + s.Delayed
			}
		}
		what = fmt.Sprintf("%d deliveries of sinks that are not configured", n)
	} else {
		s, err := letterSummary(cmd, &a.client, toQuery(values))
		if err != nil {
			return err
		}
		n := 0
		for _, c := range s.Counts {
			n += c.Count
		}
		what = fmt.Sprintf("%d dead letters", n)
		if !s.Complete {
			what = fmt.Sprintf("more than %d dead letters", n)
		}
	}
	cmd.PrintErrf("%s will be gone for good. To discard them, type yes: ", what)
	answer, err := readLine(cmd.Context(), cmd.InOrStdin())
	switch {
	case err != nil:
		return err
	case answer == "":
		cmd.PrintErrln()
		return &usageError{"nothing was discarded: that needs an answer, or --yes"}
	case strings.TrimSpace(answer) != "yes":
		cmd.PrintErrln("Nothing was discarded.")
		return errSaid
	}
	return nil
}

// readLine reads a line; empty: there is none. It does not wait any longer once ctx
// has ended.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	read := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(io.LimitReader(r, 1<<10)).ReadString('\n') // an error is the end of it
		read <- line
	}()
	select {
	case line := <-read:
		return line, nil
	case <-ctx.Done():
		return "", fmt.Errorf("read the answer: %w", errInterrupted)
	}
}
