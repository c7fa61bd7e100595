package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// noArgs refuses arguments of a command that takes none.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Sprintf("%s takes no arguments, but was given %q", path(cmd), args[0])}
	}
	return nil
}

// oneFile refuses all but one argument.
func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return &usageError{fmt.Sprintf("%s takes one FILE, but was given %d", path(cmd), len(args))}
	}
	return someFiles(cmd, args)
}

// someFiles refuses to go without arguments.
func someFiles(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &usageError{path(cmd) + " needs a FILE to read, or - for standard input"}
	}
	return nil
}

// path is how a command is called, without the name of the program.
func path(cmd *cobra.Command) string {
	return strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()))
}

// refuseUnknown makes every command that only holds others refuse a name that is
// none of theirs. By itself, cobra prints the help for it and calls that a
// success, which a script that misspelt a command would never notice.
func refuseUnknown(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		switch {
		case cmd.Name() == "help":
			cmd.Args = func(_ *cobra.Command, args []string) error { return knownCommand(root, args) }
		case cmd.HasSubCommands() && !cmd.Runnable():
			cmd.Args = knownCommand
			cmd.DisableFlagsInUseLine = true
			cmd.SuggestionsMinimumDistance = 2
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		case cmd.HasParent() && cmd.Parent().Name() == "completion":
			cmd.Args = noArgs
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
}

// knownCommand refuses arguments that lead to no command below cmd.
func knownCommand(cmd *cobra.Command, args []string) error {
	for _, name := range args {
		next, _, err := cmd.Find([]string{name})
		if err != nil || next == cmd {
			text := fmt.Sprintf("there is no command %q", strings.TrimSpace(path(cmd)+" "+name))
			if near := cmd.SuggestionsFor(name); len(near) > 0 {
				text += fmt.Sprintf(". Did you mean %q?", near[0])
			}
			return &usageError{text}
		}
		cmd = next
	}
	return nil
}
