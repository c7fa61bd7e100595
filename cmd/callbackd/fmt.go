package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/callbackd/callbackd/core/config"
	"github.com/spf13/cobra"
)

// maxFmtSize bounds what fmt reads; config refuses larger files anyway.
const maxFmtSize = 16 << 20

func newFmt() *cobra.Command {
	check := false
	cmd := &cobra.Command{
		Use:   "fmt [FILE]...",
		Short: "Format configuration files",
		Long: `Format configuration files in place, and list those that were changed. A folder
stands for its *.hcl files; - formats standard input to standard output. Without
arguments, config.hcl is formatted.

With --check nothing is changed, and the exit code is 1 when a file is not
formatted.`,
		RunE: command(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{defaultConfig}
			}
			ok := true
			for _, arg := range args {
				files := []string{arg}
				if info, err := os.Stat(arg); arg != "-" && err == nil && info.IsDir() {
					if files, err = filepath.Glob(filepath.Join(arg, "*.hcl")); err != nil {
						return fmt.Errorf("list %s: %w", arg, err)
					}
				}
				for _, file := range files {
					formatted, err := formatFile(cmd, file, check)
					if err != nil {
						return err
					}
					ok = ok && formatted
				}
			}
			if !ok {
				return errSaid
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&check, "check", false, "list the files that are not formatted, change nothing")
	return cmd
}

// formatFile formats one file. It is not ok where the file cannot be parsed, or
// is not formatted and check is set.
func formatFile(cmd *cobra.Command, file string, check bool) (ok bool, err error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return false, err
		}
		defer f.Close()
		in = f
	}
	src, err := io.ReadAll(io.LimitReader(in, maxFmtSize))
	if err != nil {
		return false, fmt.Errorf("read %s: %w", file, err)
	}
	out, diagnostics := config.Format(file, src)
	if diagnostics.HasErrors() {
		diagnostics.WriteText(cmd.ErrOrStderr(), colourful(cmd.ErrOrStderr()))
		return false, nil
	}
	same := bytes.Equal(src, out)
	switch {
	case file == "-" && !check:
		_, err = cmd.OutOrStdout().Write(out)
		return true, err
	case same:
		return true, nil
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), file); err != nil || check {
		return false, err
	}
	return true, replaceFile(file, out)
}

// replaceFile puts new content under an old name, so that no crash leaves half a
// configuration behind.
func replaceFile(name string, content []byte) error {
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(target)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(target), ".callbackd-fmt-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(temp.Name(), target)
}
