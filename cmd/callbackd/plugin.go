package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/callbackd/callbackd/core/config"
	"github.com/spf13/cobra"
)

func newPlugin() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "List, describe, write and check sink plugins",
		Long: `Commands about sink plugins: the programs that sinks run as.

A sink type is found as for a sink in the configuration: by its plugin block, else
as the program callbackd-sink-TYPE in plugin_dir. Without a configuration that is
the folder of callbackd itself.`,
	}
	cmd.AddCommand(newPluginList(), newPluginDescribe(), newPluginNew(), newPluginTest())
	return cmd
}

// pluginConfig loads the configuration as far as it says which plugins there are.
// One that nobody named need not be there, and mistakes elsewhere do not matter.
func pluginConfig(cmd *cobra.Command, path string) (*config.Config, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
		options, err := configOptions()
		if err != nil {
			return nil, err
		}
		dir, err := filepath.Abs(".")
		if err != nil {
			return nil, err
		}
		return config.Empty(dir, options), nil
	}
	cfg, diagnostics, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	if cfg == nil {
		tell(cmd, diagnostics)
		return nil, errSaid
	}
	return cfg, nil
}

// isPath tells whether a plugin is named by its program and not by its type.
func isPath(name string) bool { return strings.ContainsRune(name, filepath.Separator) }

// oneArgument takes exactly one, which what names.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return &usageError{fmt.Sprintf("%s takes one %s, but was given %d", path(cmd), what, len(args))}
		}
		return nil
	}
}

// completeTypes completes the names of sink types. No plugin is started for it.
func completeTypes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	cmd.SetErr(io.Discard) // a shell that completes shows no diagnostics
	cfg, err := pluginConfig(cmd, path)
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	types, _ := cfg.PluginTypes() // those that were found
	return types, cobra.ShellCompDirectiveDefault
}
