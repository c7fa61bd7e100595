package main

import (
	"errors"
	"log/slog"
	"os"

	"github.com/callbackd/callbackd/core"
	"github.com/callbackd/callbackd/plugins/catalog"
	"github.com/spf13/cobra"
)

func newValidate() *cobra.Command {
	var path string
	var asJSON, offline bool
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check a configuration, the settings of its sinks included",
		Long: `Check a configuration. The plugin of each sink is started to say which settings it
takes and to check them; nothing is connected to or written. What it says is kept
in the user's cache folder (CALLBACKD_CACHE_DIR names another one).

With --offline no plugin is started: the settings are checked against what the
plugins said at the last validate without it. What only a plugin itself can check
is not checked then.

Diagnostics go to standard error, with --json to standard output. Exits with 1
when one of them is an error.`,
		Args: noArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			cfg, diagnostics, err := readConfig(path)
			if err != nil {
				return err
			}
			var notKept error
			if !diagnostics.HasErrors() {
				sinks, found := checker(offline).CheckSinks(cmd.Context(), cfg)
				diagnostics = append(diagnostics, found...)
				notKept = firstNotKept(sinks)
			}
			if asJSON {
				if err := diagnostics.WriteJSON(cmd.OutOrStdout()); err != nil {
					return err
				}
			} else {
				tell(cmd, diagnostics)
				if notKept != nil {
					cmd.PrintErrf("note: validate --offline will not know what the plugins say: %v\n", notKept)
				}
			}
			if diagnostics.HasErrors() {
				if offline && !asJSON {
					cmd.PrintErrln(offlineNote)
				}
				return errSaid
			}
			switch {
			case asJSON:
			case offline:
				cmd.PrintErrln("The configuration is valid, as far as can be told offline. " + offlineNote)
			default:
				cmd.PrintErrln("The configuration is valid.")
			}
			return nil
		}),
	}
	configFlag(cmd, &path)
	offlineFlag(cmd, &offline)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the diagnostics as JSON, on standard output")
	return cmd
}

// offlineNote is the last line of what was checked without plugins.
const offlineNote = "No plugin was started: what only they can check was not checked."

func offlineFlag(cmd *cobra.Command, offline *bool) {
	cmd.Flags().BoolVar(offline, "offline", false, "start no plugin: go by what they said at the last validate")
}

func checker(offline bool) core.Checker {
	return core.Checker{
		Build: build(), Catalog: catalog.Default(os.LookupEnv), Offline: offline, Logger: slog.New(slog.DiscardHandler),
	}
}

// firstNotKept tells why something was not kept that could have been. That there
// is no folder for it is no news.
func firstNotKept(sinks []core.CheckedSink) error {
	for _, s := range sinks {
		if s.NotKept != nil && !errors.Is(s.NotKept, catalog.ErrNoFolder) {
			return s.NotKept
		}
	}
	return nil
}
