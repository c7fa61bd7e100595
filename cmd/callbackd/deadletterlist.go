package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/spf13/cobra"
)

// Limits of a list.
const (
	listedLetters  = 50
	mostOnePage    = 1000
	maxListedError = 80 // characters
)

func newLetterList() *cobra.Command {
	var client adminClient
	var filter letterFilter
	var l letterLister
	summary := false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, oldest first",
		Long: `List dead letters, oldest first: the first ` + strconv.Itoa(listedLetters) + ` that the filter lets through, or as many
as --limit says, or --all. Or count them, with --summary.`,
		Example: `  callbackd deadletter list --summary
  callbackd deadletter list --sink crm --reason expired --since 2h`,
		Args: noArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			values, err := filter.values(time.Now())
			if err != nil {
				return err
			}
			if summary {
				return summarize(cmd, &client, toQuery(values), l.asJSON)
			}
			if l.limit < 1 || l.all && cmd.Flags().Changed("limit") {
				return &usageError{"--limit has to be 1 or more, and goes without --all"}
			}
			return l.list(cmd, &client, toQuery(values))
		}),
	}
	client.flags(cmd)
	filter.register(cmd)
	flags := cmd.Flags()
	flags.IntVar(&l.limit, "limit", listedLetters, "how many to list")
	flags.BoolVar(&l.all, "all", false, "list all of them")
	flags.StringVar(&l.after, "after", "", "go on where a list ended, with what it named as the next")
	flags.BoolVar(&summary, "summary", false, "count them by sink and reason")
	flags.BoolVar(&l.asJSON, "json", false, "print JSON")
	return cmd
}

// letterLister lists page by page.
type letterLister struct {
	limit       int
	all, asJSON bool
	after       string
	begun       bool
	listed      int
}

func (l *letterLister) list(cmd *cobra.Command, client *adminClient, query url.Values) error {
	out := cmd.OutOrStdout()
	for {
		page, err := l.page(cmd, client, query)
		if err != nil {
			return err
		}
		text := letterTable(page.DeadLetters, l.listed == 0, time.Now())
		if l.asJSON {
			if text, err = l.json(page.DeadLetters); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
		l.listed, l.after = l.listed+len(page.DeadLetters), page.Next
		if page.Next == "" || !l.all && l.listed >= l.limit {
			break
		}
	}
	switch {
	case l.asJSON:
		end := "],\n"
		if l.listed > 0 {
			end = "\n  ],\n"
		}
		_, err := fmt.Fprintf(out, "%s  \"next\": %q\n}\n", end, l.after)
		return err
	case l.listed == 0:
		cmd.PrintErrln("There are no such dead letters.")
	case l.after != "":
		cmd.PrintErrf("There may be more: go on with --after %s, or list --all.\n", l.after)
	}
	return nil
}

func (l *letterLister) page(cmd *cobra.Command, client *adminClient, query url.Values) (page admin.DeadLetterPage, err error) {
	size := mostOnePage
	if !l.all {
		size = min(size, l.limit-l.listed)
	}
	query.Set("limit", strconv.Itoa(size))
	query.Del("after")
	if l.after != "" {
		query.Set("after", l.after)
	}
	err = client.call(cmd, adminCall{method: http.MethodGet, path: "/api/v1/deadletters", query: query}, &page)
	return page, err
}

// json is a part of the one object that is printed, however many pages it has.
func (l *letterLister) json(letters []admin.DeadLetter) (string, error) {
	var b strings.Builder
	if !l.begun {
		l.begun = true
		b.WriteString("{\n  \"dead_letters\": [")
	}
	for i := range letters {
		if l.listed+i > 0 {
			b.WriteByte(',')
		}
		text, err := indentJSON(letters[i])
		if err != nil {
			return "", err
		}
		b.WriteString("\n    " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    "))
	}
	return b.String(), nil
}

func letterTable(letters []admin.DeadLetter, head bool, now time.Time) string {
	if len(letters) == 0 {
		return ""
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if head {
		_, _ = fmt.Fprintln(table, "ID\tDIED\tSINK\tPIPELINE\tREASON\tATTEMPTS\tTYPE\tERROR")
	}
	for i := range letters {
		d := &letters[i]
		text := oneLine(d.Error)
		if runes := []rune(text); len(runes) > maxListedError {
			text = string(runes[:maxListedError]) + "…"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s ago\t%s\t%s\t%s\t%d\t%s\t%s\n", d.ID, age(now.Sub(d.Died)), oneLine(d.Sink), oneLine(d.Pipeline),
			d.Reason, d.Attempts, oneLine(d.Type), text)
	}
	_ = table.Flush() // into a Builder
	return b.String()
}

// summarize counts the dead letters.
func summarize(cmd *cobra.Command, client *adminClient, query url.Values, asJSON bool) error {
	s, err := letterSummary(cmd, client, query)
	if err != nil {
		return err
	}
	var b strings.Builder
	if asJSON {
		text, err := indentJSON(s)
		if err != nil {
			return err
		}
		b.WriteString(text)
	} else if len(s.Counts) > 0 {
		now := time.Now()
		table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "SINK\tREASON\tCOUNT\tOLDEST\tLATEST")
		for _, c := range s.Counts {
			_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%s ago\t%s ago\n", oneLine(c.Sink), c.Reason, c.Count, age(now.Sub(c.Oldest)), age(now.Sub(c.Latest)))
		}
		_ = table.Flush() // into a Builder
	}
	if _, err := io.WriteString(cmd.OutOrStdout(), b.String()); err != nil {
		return err
	}
	switch {
	case asJSON:
	case !s.Complete:
		cmd.PrintErrf("Only the oldest %d of %d dead letters were looked at.\n", s.Scanned, s.Kept)
	case len(s.Counts) == 0:
		cmd.PrintErrln("There are no such dead letters.")
	}
	return nil
}

func letterSummary(cmd *cobra.Command, client *adminClient, query url.Values) (s admin.DeadLetterSummary, err error) {
	err = client.call(cmd, adminCall{method: http.MethodGet, path: "/api/v1/deadletters/summary", query: query}, &s)
	return s, err
}

func newLetterShow() *cobra.Command {
	var client adminClient
	var asJSON, full, onlyBody bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a dead letter with its event",
		Long: `Show a dead letter with its event: headers, query, and the body, of which the
first 64 KiB unless --full is given. With --body, nothing but the whole body is
written. Secrets of the configuration are masked.`,
		Example: `  callbackd deadletter show 01JZ7ZW1X9Q0V5C1S1M5T8Q2AB_0f3a5c7e9b1d
  callbackd deadletter show --body 01JZ7ZW1X9Q0V5C1S1M5T8Q2AB_0f3a5c7e9b1d > body.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{path(cmd) + " takes one ID, as callbackd deadletter list shows it"}
			}
			return checkIDs(args)
		},
		RunE: command(func(cmd *cobra.Command, args []string) error {
			if asJSON && onlyBody {
				return &usageError{"--json and --body exclude each other"}
			}
			ask := adminCall{method: http.MethodGet, path: "/api/v1/deadletters/" + args[0]}
			if full || onlyBody {
				ask.query = url.Values{"body": {"full"}}
			}
			var d admin.FullDeadLetter
			if err := client.call(cmd, ask, &d); err != nil {
				return err
			}
			text, err := fullLetterText(&d), error(nil)
			switch {
			case asJSON:
				text, err = indentJSON(&d)
			case onlyBody:
				text, err = wholeBody(&d)
				if d.BodyMasked {
					cmd.PrintErrln("The body had a secret of the configuration in it, which is masked.")
				}
			}
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return err
		}),
	}
	client.flags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&full, "full", false, "show the whole body")
	flags.BoolVar(&onlyBody, "body", false, "write the whole body, and nothing else")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func wholeBody(d *admin.FullDeadLetter) (string, error) {
	if d.BodyBase64 == "" {
		return d.Body, nil
	}
	b, err := base64.StdEncoding.DecodeString(d.BodyBase64)
	if err != nil {
		return "", fmt.Errorf("the body that the daemon answered is none: %w", err)
	}
	return string(b), nil
}

func fullLetterText(d *admin.FullDeadLetter) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			value = strings.TrimSuffix(visible(value), "\n")
			fmt.Fprintf(&b, "%-13s %s\n", name, strings.ReplaceAll(value, "\n", "\n"+strings.Repeat(" ", 14)))
		}
	}
	line("id", d.ID)
	line("sink", d.Sink)
	line("pipeline", d.Pipeline)
	line("reason", d.Reason)
	line("error", d.Error)
	line("attempts", strconv.Itoa(d.Attempts))
	line("accepted", d.Accepted.Format(time.RFC3339Nano))
	line("died", d.Died.Format(time.RFC3339Nano))
	line("event", d.EventID)
	line("source", d.Source)
	line("type", d.Type)
	line("subject", d.Subject)
	line("time", d.Time.Format(time.RFC3339Nano))
	line("content_type", d.ContentType)
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		line("header", name+": "+d.Headers[name])
	}
	for _, name := range slices.Sorted(maps.Keys(d.Query)) {
		line("query", name+"="+d.Query[name])
	}
	line("body", d.Body)
	line("body_base64", d.BodyBase64)
	if d.BodyCut {
		line("", fmt.Sprintf("(the beginning of %d bytes: --full shows all)", d.BodySize))
	}
	if d.BodyMasked {
		line("", "(a secret of the configuration in the body is masked)")
	}
	return b.String()
}
