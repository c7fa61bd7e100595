package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/redact"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema/manual"
	"github.com/spf13/cobra"
)

func newPluginDescribe() *cobra.Command {
	var path, format string
	var asJSON, offline, plain bool
	cmd := &cobra.Command{
		Use:   "describe NAME|PATH",
		Short: "Show the settings of a sink type",
		Long: `Show what a sink type does and which settings it takes, as its plugin declares
them, with an example to paste. NAME is a sink type, as in sink "NAME"; what
contains a slash is the PATH of a program.

The plugin is started for it, and what it says is kept for --offline.`,
		Example: `  callbackd plugin describe slack
  callbackd plugin describe --format markdown ./callbackd-sink-mine`,
		Args:              oneArgument("NAME or PATH"),
		ValidArgsFunction: completeTypes,
		RunE: command(func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "markdown" {
				return &usageError{fmt.Sprintf("%q is no format: it is text or markdown", format)}
			}
			if asJSON && cmd.Flags().Changed("format") {
				return &usageError{"--json and --format exclude each other"}
			}
			if plain && !isPath(args[0]) {
				return &usageError{"--plain is for a PATH: what a sink type is run with, its plugin block says"}
			}
			cfg, err := pluginConfig(cmd, path)
			if err != nil {
				return err
			}
			plugin, err := findPlugin(cfg, args[0], plain)
			if err != nil {
				return err
			}
			d, err := describe(cmd.Context(), cfg, args[0], plugin, offline)
			if err != nil {
				return err
			}
			out, err := described(d, plugin, format, asJSON)
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), redact.New(cfg.Secrets()).Mask(out))
			return err
		}),
	}
	configFlag(cmd, &path)
	offlineFlag(cmd, &offline)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&format, "format", "text", "text or markdown")
	cmd.Flags().BoolVar(&plain, "plain", false, "with PATH: do without TLS, as a plugin block with tls = false")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "markdown"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// findPlugin finds a plugin by its sink type or its program.
func findPlugin(cfg *config.Config, name string, plain bool) (config.Plugin, error) {
	if !isPath(name) {
		plugin, err := cfg.PluginOf(name)
		var none *config.NoPluginError
		if errors.As(err, &none) {
			err = fmt.Errorf("%w\nA program is named by its path: ./%s", err, name)
		}
		return plugin, err
	}
	plugin, err := cfg.PluginAt(name)
	plugin.NoTLS = plain
	return plugin, err
}

func describe(ctx context.Context, cfg *config.Config, name string, plugin config.Plugin, offline bool) (*host.Description, error) {
	if isPath(name) {
		name = "plugin"
	}
	d, _, err := checker(offline).Describe(ctx, cfg, name, plugin)
	if err != nil && offline {
		return nil, fmt.Errorf("%w\nRun callbackd plugin describe without --offline once: it starts the plugin, and keeps what it says", err)
	}
	return d, err
}

// described is a plugin for people, or for programs.
func described(d *host.Description, plugin config.Plugin, format string, asJSON bool) (string, error) {
	m := manual.Manual{Name: d.Name, Version: d.Version, Doc: d.Doc, Schema: d.Schema, Limits: manual.Limits(d.Capabilities)}
	switch {
	case asJSON:
		return indentJSON(struct {
			manual.Document
			Command []string `json:"command"`
		}{m.Document(), plugin.Command})
	case format == "markdown":
		return m.Markdown(), nil
	}
	return m.Text(), nil
}

func indentJSON(v any) (string, error) {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(v)
	return b.String(), err
}
