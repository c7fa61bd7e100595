package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/callbackd/callbackd/plugins/scaffold"
	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/spf13/cobra"
)

func newPluginNew() *cobra.Command {
	o := scaffold.Options{Version: version}
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Write the beginning of a sink plugin",
		Long: `Write a sink plugin that works, with its test, an example configuration and a
README, into a new folder. NAME is the sink type: what is written as sink "NAME".

With --sdk a sink in Go is built against a checkout of callbackd, with the same
dependencies: nothing has to be downloaded.`,
		Example: `  callbackd plugin new mine
  callbackd plugin new mine --lang python --dir sinks/mine`,
		Args:              oneArgument("NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: command(func(cmd *cobra.Command, args []string) error {
			o.Name = args[0]
			if !schema.ValidName(o.Name) {
				return &usageError{fmt.Sprintf("%q is no sink type: it has 1 to 63 letters, digits, - and _, and begins with a letter or _", o.Name)}
			}
			if o.Lang != scaffold.Go && o.Lang != scaffold.Python {
				return &usageError{fmt.Sprintf("there is no template for %q: there are %s and %s", o.Lang, scaffold.Go, scaffold.Python)}
			}
			if o.SDK != "" && o.Lang != scaffold.Go {
				return &usageError{"--sdk is for --lang go: a sink in Python has all it needs in its own folder"}
			}
			if cmd.Flags().Changed("dir") && o.Dir == "" {
				return errors.New("--dir is empty")
			}
			if o.Dir == "" {
				o.Dir = "callbackd-sink-" + o.Name
			}
			files, err := scaffold.Write(o)
			if err != nil {
				return fmt.Errorf("write the sink %s: %w", o.Name, err)
			}
			for _, name := range files {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(o.Dir, name)); err != nil {
					return err
				}
			}
			cmd.PrintErrf("The sink is written. What comes next is in %s.\n", filepath.Join(o.Dir, "README.md"))
			return nil
		}),
	}
	cmd.Flags().StringVar(&o.Lang, "lang", scaffold.Go, "go or python")
	cmd.Flags().StringVar(&o.Dir, "dir", "", "the folder to write to (default callbackd-sink-NAME)")
	cmd.Flags().StringVar(&o.SDK, "sdk", "", "a checkout of callbackd to build against")
	_ = cmd.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions([]string{scaffold.Go, scaffold.Python}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("dir")
	_ = cmd.MarkFlagDirname("sdk")
	return cmd
}
