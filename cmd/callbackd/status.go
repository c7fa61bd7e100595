package main

import (
	"encoding/json"
	"io"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/spf13/cobra"
)

func newStatus() *cobra.Command {
	var client adminClient
	asJSON := false
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running daemon and each of its sinks are doing",
		Long: `Show what the running daemon and each of its sinks are doing: the state of the
sink's process, how it is run, and what waits for it.

The daemon is asked at the admin address of the configuration, or at --admin URL
(or ` + adminURLEnv + `), which may hold a user and a password:
https://USER:PASSWORD@HOST:PORT. Exits with 1 when the daemon does not answer or
is not ready.`,
		Args: noArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			var status admin.Status
			if err := client.get(cmd, "/api/v1/status", &status); err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetEscapeHTML(false)
				encoder.SetIndent("", "  ")
				if err := encoder.Encode(status); err != nil {
					return err
				}
			} else if _, err := io.WriteString(cmd.OutOrStdout(), visible(statusText(&status, time.Now()))); err != nil {
				return err
			}
			if !status.Ready {
				return errSaid
			}
			return nil
		}),
	}
	client.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
