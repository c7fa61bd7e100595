//go:build !linux

package faultsink

// ignoreParentSignal: there is no such signal here.
func ignoreParentSignal() {}
