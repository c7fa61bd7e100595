package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/callbackd/callbackd/core/config"
	"github.com/spf13/cobra"
)

// defaultConfig is where a configuration is looked for.
const defaultConfig = "config.hcl"

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", defaultConfig, "the configuration: a file, or a folder of *.hcl files")
}

// loadConfig loads the configuration and says on stderr what is wrong with it.
func loadConfig(cmd *cobra.Command, path string) (*config.Config, error) {
	cfg, diagnostics, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	tell(cmd, diagnostics)
	if diagnostics.HasErrors() {
		return nil, errSaid
	}
	return cfg, nil
}

// tell prints diagnostics for people.
func tell(cmd *cobra.Command, diagnostics config.Diagnostics) {
	// Where standard error takes nothing, the exit code has to do.
	_ = diagnostics.WriteText(cmd.ErrOrStderr(), colorful(cmd.ErrOrStderr()))
}

func readConfig(path string) (*config.Config, config.Diagnostics, error) {
	options, err := configOptions()
	if err != nil {
		return nil, nil, err
	}
	cfg, diagnostics := config.Load(path, options)
	return cfg, diagnostics, nil
}

// configOptions say what a configuration depends on besides its files.
func configOptions() (config.Options, error) {
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return config.Options{}, fmt.Errorf("find the plugins beside the daemon: %w", err)
	}
	return config.Options{LookupEnv: os.LookupEnv, PluginDir: filepath.Dir(program)}, nil
}

// colorful tells whether w is a terminal whose user did not ask for plain text.
func colorful(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
