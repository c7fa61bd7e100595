package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/redact"
	"github.com/spf13/cobra"
)

// What listing may take: so many plugins are asked at the same time, each has so
// long, and all together.
const (
	listTogether = 4
	listEach     = 15 * time.Second // the host gives up on most things before, and says why
	listAll      = time.Minute
)

func newPluginList() *cobra.Command {
	var path string
	var asJSON, offline bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the sink types that there are plugins for",
		Long: `List the sink types that there are plugins for: those with a plugin block in the
configuration, and the programs callbackd-sink-TYPE in plugin_dir. Each one is
started to say what it is; one that cannot be is a line that says why.`,
		Args: noArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			cfg, err := pluginConfig(cmd, path)
			if err != nil {
				return err
			}
			types, err := cfg.PluginTypes()
			if err != nil && len(types) == 0 {
				return err
			}
			if err != nil {
				cmd.PrintErrf("warning: %v\n", err)
			}
			plugins := listPlugins(cmd.Context(), cfg, types, offline)
			mask := redact.New(cfg.Secrets()).Mask
			out := ""
			switch {
			case asJSON:
				if out, err = indentJSON(map[string]any{"plugins": plugins}); err != nil {
					return err
				}
			case len(plugins) == 0:
				cmd.PrintErrf("There are no plugins in %s.\n", cfg.PluginDir)
			default:
				out = pluginTable(plugins)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), mask(out))
			return err
		}),
	}
	configFlag(cmd, &path)
	offlineFlag(cmd, &offline)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// listedPlugin is one line of the list.
type listedPlugin struct {
	Type    string   `json:"type"`
	Version string   `json:"version,omitempty"`
	Command []string `json:"command,omitempty"`
	Pinned  bool     `json:"pinned"`
	Doc     string   `json:"doc,omitempty"`
	// Error is why it cannot be used.
	Error string `json:"error,omitempty"`
}

// listPlugins asks the plugins what they are, some at the same time.
func listPlugins(ctx context.Context, cfg *config.Config, types []string, offline bool) []listedPlugin {
	ctx, cancel := context.WithTimeoutCause(ctx, listAll, fmt.Errorf("all plugins together took more than %s", listAll))
	defer cancel()
	out := make([]listedPlugin, len(types))
	free := make(chan struct{}, listTogether)
	var asked sync.WaitGroup
	for i, name := range types {
		free <- struct{}{}
		asked.Go(func() {
			defer func() { <-free }()
			out[i] = listPlugin(ctx, cfg, name, offline)
		})
	}
	asked.Wait()
	return out
}

func listPlugin(ctx context.Context, cfg *config.Config, name string, offline bool) listedPlugin {
	plugin, err := cfg.PluginOf(name)
	out := listedPlugin{Type: name, Command: plugin.Command, Pinned: plugin.SHA256 != ""}
	if err == nil {
		each, cancel := context.WithTimeoutCause(ctx, listEach, fmt.Errorf("it took more than %s to say what it is", listEach))
		defer cancel()
		d, _, failed := checker(offline).Describe(each, cfg, name, plugin)
		if err = failed; err != nil && each.Err() != nil {
			err = context.Cause(each)
		} else if err == nil {
			out.Version, out.Doc = d.Version, d.Doc
			if d.Name != name {
				out.Doc = strings.TrimSpace(fmt.Sprintf("(calls itself %q) %s", d.Name, d.Doc))
			}
		}
	}
	var none *config.NoPluginError
	switch {
	case errors.As(err, &none):
		out.Error = none.Why
	case err != nil:
		out.Error = err.Error()
	}
	return out
}

// maxListedDoc is how many characters of a doc are listed.
const maxListedDoc = 100

func pluginTable(plugins []listedPlugin) string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "TYPE\tVERSION\tPINNED\tPROGRAM\tDOC")
	for _, p := range plugins {
		pinned := "no"
		if p.Pinned {
			pinned = "yes"
		}
		about := firstSentence(p.Doc)
		if p.Error != "" {
			about = "error: " + p.Error
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", p.Type, cmp.Or(oneLine(p.Version), "-"), pinned,
			cmp.Or(oneLine(strings.Join(p.Command, " ")), "-"), oneLine(about))
	}
	_ = table.Flush() // a Builder takes everything
	return b.String()
}

// firstSentence is the beginning of a doc.
func firstSentence(doc string) string {
	doc = strings.Join(strings.Fields(doc), " ")
	if end := strings.Index(doc, ". "); end >= 0 {
		doc = doc[:end+1]
	}
	if runes := []rune(doc); len(runes) > maxListedDoc {
		doc = string(runes[:maxListedDoc]) + "…"
	}
	return doc
}

func oneLine(s string) string { return visible(strings.Join(strings.Fields(s), " ")) }
