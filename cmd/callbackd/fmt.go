package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
stands for its *.hcl files, hidden ones left out; - formats standard input to
standard output. Without arguments, config.hcl is formatted.

With --check nothing is changed, and the exit code is 1 when a file is not
formatted.`,
		RunE: command(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{defaultConfig}
			}
			files, err := formattable(args)
			if err != nil {
				return err
			}
			ok := true
			for _, file := range files {
				formatted, err := formatFile(cmd, file, check)
				if err != nil {
					return err
				}
				ok = ok && formatted
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

// formattable returns the files that the arguments stand for.
func formattable(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case arg == stdinName:
			files = append(files, arg)
			continue
		case err != nil:
			return nil, err
		case !info.IsDir():
			if !info.Mode().IsRegular() {
				return nil, fmt.Errorf("%s is not a regular file: use - to format standard input", arg)
			}
			files = append(files, arg)
			continue
		}
		entries, err := os.ReadDir(arg)
		if err != nil {
			return nil, err
		}
		found := false
		for _, entry := range entries {
			name := entry.Name()
			if strings.HasSuffix(name, ".hcl") && !strings.HasPrefix(name, ".") && !entry.IsDir() {
				files, found = append(files, filepath.Join(arg, name)), true
			}
		}
		if !found {
			return nil, fmt.Errorf("the folder %s holds no *.hcl files", arg)
		}
	}
	return files, nil
}

// formatFile formats one file. It is not ok where the file cannot be parsed, or
// is not formatted and check is set.
func formatFile(cmd *cobra.Command, file string, check bool) (ok bool, err error) {
	src, err := readInput(cmd.Context(), cmd.InOrStdin(), file, maxFmtSize)
	if err != nil {
		return false, err
	}
	out, diagnostics := config.Format(file, src)
	if diagnostics.HasErrors() {
		tell(cmd, diagnostics)
		return false, nil
	}
	same := bytes.Equal(src, out)
	switch {
	case file == stdinName && !check:
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
	defer os.Remove(temp.Name()) //nolint:errcheck // it is gone once it was renamed
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
