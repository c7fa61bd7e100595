// Package sink is the SDK for callbackd's sinks: the one import of a sink
// plugin's author.
//
// A sink plugin is a program that delivers events to one kind of place. Its main
// calls Serve with what it is and a function that opens a sink from its
// settings:
//
//	type Config struct {
//		URL  string                `hcl:"url" doc:"where to send"`
//		Text sink.PerEvent[string] `hcl:"text,optional" doc:"evaluated for each event"`
//		Key  sink.Secret           `hcl:"key,optional"`
//	}
//
//	func main() { sink.Serve(sink.Info{Name: "mine", Version: "1.0.0"}, open) }
//
// The config struct is the schema. Its fields are settings of the type string,
// bool, any int, uint or float, time.Duration (written "30s"), Size ("10MiB"),
// Path, Secret, Any, a slice or a map[string] of these, PerEvent of all these, or
// a nested block: a struct, a pointer to one, a slice of structs. A pointer to a
// simple type is nil where the setting is null. Tags:
//
//	hcl:"NAME[,optional][,sensitive][,block]"
//	doc:"what it does"     default:"30s"     oneof:"a|b"
//	escape:"& &amp; < &lt;"  of a PerEvent: what is replaced in text from events
//	min:"1" max:"8"          of repeated blocks: how many
//
// An attribute with a default, or of a pointer type, is optional; lists, maps and
// Any give theirs as JSON. A block that is a plain struct may be left out when
// nothing in it is required; its attributes then have their defaults.
//
// Diagnostics go to log/slog, which Serve connects to the daemon's log. Standard
// output is free to use. A sink that is Measured has figures of its own beside
// the daemon's.
//
// The package promises that one bad event, a panic included, convicts only
// itself, that results reach the daemon as soon as they are known, and that the
// process ends when the daemon does. It knows nothing of the daemon's inside.
package sink
