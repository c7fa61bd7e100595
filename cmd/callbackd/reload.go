package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/spf13/cobra"
)

// reloadTimeout is how long a reload is waited for: sinks have to start, and those
// that change have to finish what they have in flight first.
const reloadTimeout = 10 * time.Minute

func newReload() *cobra.Command {
	var client adminClient
	asJSON := false
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Let the running daemon read its configuration again",
		Long: `Let the running daemon read its configuration again. It takes effect as a whole, or
nothing is changed. Sinks that did not change keep their process and what they have
in flight; no callback is refused meanwhile. SIGHUP to the daemon does the same.

The daemon is asked at the admin address of the configuration, or at --admin URL
(or ` + adminURLEnv + `). It reads the files that it was started with. Exits with 1
where nothing was changed, and says why.`,
		Args: noArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			var answer admin.Reload
			err := client.call(cmd, adminCall{
				method: http.MethodPost, path: "/-/reload", timeout: reloadTimeout,
				answers: []int{http.StatusUnprocessableEntity, http.StatusInternalServerError},
			}, &answer)
			if err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetEscapeHTML(false)
				encoder.SetIndent("", "  ")
				if err := encoder.Encode(answer); err != nil {
					return err
				}
			} else if err := tellReload(cmd, &answer); err != nil {
				return err
			}
			if answer.Error != "" {
				return errSaid
			}
			return nil
		}),
	}
	client.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// tellReload says for people what a reload did.
func tellReload(cmd *cobra.Command, answer *admin.Reload) error {
	if answer.Error != "" {
		text := answer.Error
		if answer.Text != "" {
			text = answer.Text + "\n" + text
		}
		// Where standard error takes nothing, the exit code has to do.
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "callbackd: %s\n", visible(text))
		return nil
	}
	var text strings.Builder
	for _, w := range answer.Warnings {
		fmt.Fprintf(&text, "warning: %s\n", w.String())
	}
	text.WriteString("The configuration was reloaded.\n")
	for _, x := range []struct {
		what  string
		sinks []string
	}{
		{"new sinks", answer.Started}, {"restarted", answer.Restarted}, {"removed", answer.Removed}, {"not touched", answer.Kept},
	} {
		if len(x.sinks) > 0 {
			fmt.Fprintf(&text, "  %-12s %s\n", x.what, strings.Join(x.sinks, ", "))
		}
	}
	_, err := io.WriteString(cmd.OutOrStdout(), visible(text.String()))
	return err
}
