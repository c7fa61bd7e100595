// Command callbackd-sink-fault is the fault sink as a program.
package main

import "github.com/callbackd/callbackd/plugins/sinktest/faultsink"

func main() { faultsink.Main() }
