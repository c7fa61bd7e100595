package main

import (
	"bytes"
	"os"
	"regexp"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// seeStatus asks for the status until it has a line: seen ADDRESS PATTERN
func seeStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: seen ADDRESS PATTERN")
	}
	line, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	eventually(ts, "a line of the status that matches "+args[1], func() bool {
		ts.Check(ts.Exec("callbackd", "status", "--admin", "http://"+args[0]))
		return line.MatchString(ts.ReadFile("stdout"))
	})
}

// writeLarge writes a JSON text of a size: large FILE BYTES
func writeLarge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: large FILE BYTES")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := append(append([]byte{'"'}, bytes.Repeat([]byte{'x'}, max(0, n-2))...), '"')
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
}
