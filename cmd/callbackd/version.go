package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print which program this is",
		Args:  noArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			b := build()
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{
					"version": b.Version, "revision": b.Revision, "goversion": b.GoVersion,
				})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "callbackd %s (%s, %s)\n", b.Version, b.Revision, b.GoVersion)
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
