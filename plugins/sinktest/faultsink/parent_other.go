//go:build !linux

package faultsink

import "os/exec"

// ignoreParentSignal: there is no such signal here.
func ignoreParentSignal() {}

// leaveGroup: what it is for is tested on Linux.
func leaveGroup(*exec.Cmd) {}
