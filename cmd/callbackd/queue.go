package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/callbackd/callbackd/core/queue"
	"github.com/spf13/cobra"
)

func newQueue() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Check the store of a queue, and salvage a damaged one",
		Long: `Check the store of a queue, and salvage what can be read of a damaged one. The
daemon that uses it has to be stopped before.`,
	}
	cmd.AddCommand(newQueueCheck(), newQueueSalvage())
	return cmd
}

// oneDir refuses all but one argument.
func oneDir(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &usageError{path(cmd) + " takes one DIR: queue.dir of the configuration, by default data/queue beside it"}
	}
	return nil
}

func newQueueCheck() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Read all of a store and tell what of it is damaged",
		Long: `Read all of the store in DIR, and tell what of it cannot be read. Nothing is
changed. Exit code 0: it is in order.`,
		Example: `  callbackd queue check /var/lib/callbackd/queue`,
		Args:    oneDir,
		RunE: command(func(cmd *cobra.Command, args []string) error {
			found, err := queue.Inspect(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			text := unreadableText(found.Unreadable) + fmt.Sprintf("%s and %s were read: %s.\n", plural(int64(found.Tables), "table"),
				plural(int64(found.Logs), "log"), verdict(found, args[0]))
			if asJSON {
				if text, err = indentJSON(found); err != nil {
					return err
				}
			}
			if _, err := io.WriteString(cmd.OutOrStdout(), text); err != nil {
				return err
			}
			if len(found.Unreadable) > 0 {
				return errSaid
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func verdict(found queue.Inspection, dir string) string {
	if len(found.Unreadable) > 0 {
		return fmt.Sprintf("the store is damaged: make a new queue of what can be read with callbackd queue salvage %s --to NEWDIR", dir)
	}
	return "the store is in order"
}

func newQueueSalvage() *cobra.Command {
	asJSON, to := false, ""
	cmd := &cobra.Command{
		Use:   "salvage DIR --to NEWDIR",
		Short: "Make a new queue of what can be read of a damaged store",
		Long: `Read what can be read of the store in DIR, also behind what is damaged, and make
a queue of it in NEWDIR, which must not exist or be empty. DIR is not written to.

What may or may not have been delivered is kept as pending: it may be delivered a
second time, with the same delivery id. NEWDIR and its parent need up to three
times the space of DIR for a while.`,
		Example: `  callbackd queue salvage /var/lib/callbackd/queue --to /var/lib/callbackd/queue-new`,
		Args:    oneDir,
		RunE: command(func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return &usageError{"queue salvage needs --to NEWDIR, a directory that does not exist yet"}
			}
			result, err := queue.Salvage(cmd.Context(), args[0], to)
			if err != nil {
				return err
			}
			text := salvagedText(&result, args[0], to)
			if asJSON {
				if text, err = indentJSON(&result); err != nil {
					return err
				}
			}
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return err
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", "the directory of the new queue")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// mostPlaces is how many places are listed for people.
const mostPlaces = 50

func unreadableText(places []queue.Unreadable) string {
	var b strings.Builder
	for i, u := range places {
		if i == mostPlaces {
			fmt.Fprintf(&b, "… and %d more: --json has all\n", len(places)-mostPlaces)
			break
		}
		fmt.Fprintf(&b, "%s, byte %d", u.File, u.Offset)
		if u.Length > 0 {
			fmt.Fprintf(&b, ", %s", plural(u.Length, "byte"))
		}
		fmt.Fprintf(&b, ": %s\n", visible(u.Cause))
	}
	return b.String()
}

func salvagedText(r *queue.Salvaged, dir, to string) string {
	var b strings.Builder
	b.WriteString(unreadableText(r.Unreadable))
	fmt.Fprintf(&b, "%s from %s and %s are in the new queue %s\n", plural(r.Events, "event"), plural(int64(r.Tables), "table"),
		plural(int64(r.Logs), "log"), to)
	if len(r.Sinks) > 0 {
		table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "SINK\tPENDING\tDELAYED\tDEAD LETTERS")
		for _, name := range slices.Sorted(maps.Keys(r.Sinks)) {
			s := r.Sinks[name]
			_, _ = fmt.Fprintf(table, "%s\t%d\t%d\t%d\n", oneLine(name), s.Pending, s.Delayed, s.DeadLetters)
		}
		_ = table.Flush() // into a Builder
	}
	if r.Assumed > 0 {
		fmt.Fprintf(&b, "Of %s among the pending nothing tells whether they were delivered before: some may be a second time.\n", plural(r.Assumed, "delivery"))
	}
	if r.Lost > 0 {
		fmt.Fprintf(&b, "%s found without the event: lost.\n", plural(r.Lost, "delivery"))
	}
	if r.BadRecords > 0 {
		fmt.Fprintf(&b, "%s not understood: lost.\n", plural(r.BadRecords, "record"))
	}
	if len(r.Unreadable) > 0 {
		b.WriteString("What was in the places above may be lost without a trace.\n")
	}
	fmt.Fprintf(&b, "Put it into the place of the old one, with the owner that the daemon has:\n  mv '%s' '%s-damaged' && mv '%s' '%s'\n",
		filepath.Clean(dir), filepath.Clean(dir), filepath.Clean(to), filepath.Clean(dir))
	return b.String()
}

// plural counts things, of which there may be one.
func plural(n int64, thing string) string {
	switch stem, ok := strings.CutSuffix(thing, "y"); {
	case n == 1:
		return "1 " + thing
	case ok:
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
