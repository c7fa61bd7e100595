package main

import (
	"log/slog"

	"github.com/callbackd/callbackd/core"
	"github.com/spf13/cobra"
)

func newValidate() *cobra.Command {
	var path string
	asJSON := false
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check a configuration, the settings of its sinks included",
		Long: `Check a configuration. The plugin of each sink is started to say which settings it
takes and to check them; nothing is connected to or written.

Diagnostics go to standard error, with --json to standard output. Exits with 1
when one of them is an error.`,
		Args: noArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			cfg, diagnostics, err := readConfig(path)
			if err != nil {
				return err
			}
			if !diagnostics.HasErrors() {
				_, found := core.CheckSinks(cmd.Context(), cfg, build(), slog.New(slog.DiscardHandler))
				diagnostics = append(diagnostics, found...)
			}
			if asJSON {
				if err := diagnostics.WriteJSON(cmd.OutOrStdout()); err != nil {
					return err
				}
			} else {
				tell(cmd, diagnostics)
			}
			if diagnostics.HasErrors() {
				return errSaid
			}
			if !asJSON {
				cmd.PrintErrln("The configuration is valid.")
			}
			return nil
		}),
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the diagnostics as JSON, on standard output")
	return cmd
}
