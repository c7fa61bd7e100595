//go:build race

package redrive_test

func init() { manyLetters = 10_000 }
