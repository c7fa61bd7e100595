// Command bench measures callbackd beside references, in one run on one machine.
// Each process of a load is one of its own: the program runs itself again as load
// generator, receiver and reference, so that what each costs is known. Loopback
// only, bounded in time, and every callback that was answered with success is
// accounted for: a loss is an error.
//
//	bench [flags] load       accept → file and accept → webhook, beside a bare handler and reverse proxies
//	bench [flags] backlog    a sink that is down, until so many deliveries are pending; then a restart
//	bench [flags] soak       a long load at half of the highest rate
//	bench [flags] isolation  a healthy sink beside one that is not
//	bench deliver            the process line alone, in the format of Go benchmarks
//
// It knows the product as its users do: by its programs, configuration, files and
// metrics. Only deliver imports it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// common are the options of all scenarios.
type common struct {
	bin      string        // folder of the programs
	dir      string        // folder for what is written
	body     int           // bytes
	duration time.Duration // of a load
	warmup   time.Duration
	threads  int // of the generator
	profile  string
	write    string // page
}

// say tells on standard error how it goes.
func (c *common) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func main() {
	switch {
	case os.Getenv("CALLBACKD_SINK") != "":
		sink.Serve(sink.Info{Name: "noop", Version: "1", Doc: "Takes everything, does nothing."}, openNoop)
		return
	case len(os.Args) == 3 && strings.HasPrefix(os.Args[1], "role:"):
		if err := play(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run obeys the command line.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	var c common
	flags.StringVar(&c.bin, "bin", "bin", "the `folder` with callbackd and its sinks")
	flags.StringVar(&c.dir, "dir", os.TempDir(), "the `folder` for queues and files, on the disk that is to be measured")
	flags.IntVar(&c.body, "body", 350, "`bytes` of a callback's body")
	flags.DurationVar(&c.duration, "duration", 0, "how long a load lasts (default 5s, soak 10m)")
	flags.DurationVar(&c.warmup, "warmup", time.Second, "how long each load runs before it is measured")
	flags.IntVar(&c.threads, "threads", max(1, runtime.NumCPU()/2), "`threads` of the load generator")
	flags.StringVar(&c.profile, "profile", "", "load, isolation: record processor time by Linux perf into this `folder`")
	flags.StringVar(&c.write, "write", "", "put what was found into this `page`")
	rounds := flags.Int("rounds", 5, "load, isolation: how many times everything is measured")
	connections := flags.String("connections", "64,256", "load: connections of the load generator")
	only := flags.String("only", "", "load, isolation: a `part` of the names of what is to be measured, such as webhook")
	pending := flags.Int("pending", 1_000_000, "backlog: `deliveries` that are to be pending, up to 10000000")
	rate := flags.Float64("rate", 2000, "isolation: `callbacks` a second of the load that is not at full speed")
	fault := flags.String("fault", "", "isolation: the `program` of the fault sink (default bench/callbackd-sink-fault in the folder of -bin)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	scenario := flags.Arg(0)
	if flags.NArg() != 1 {
		return errors.New("name one scenario: load, backlog, soak, isolation or deliver")
	}
	if scenario == "deliver" {
		return benchDeliver(ctx)
	}
	if c.duration == 0 {
		c.duration = map[bool]time.Duration{false: 5 * time.Second, true: 10 * time.Minute}[scenario == "soak"]
	}
	if err := c.check(*rounds); err != nil {
		return err
	}
	var err error
	if c.bin, err = filepath.Abs(c.bin); err != nil {
		return err
	}
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return err
	}
	var page string
	switch scenario {
	case "load":
		o := loadOptions{common: c, rounds: *rounds}
		if o.connections, err = parseList(*connections); err != nil {
			return err
		}
		for _, name := range contestants() {
			if strings.Contains(name, *only) {
				o.only = append(o.only, name)
			}
		}
		if len(o.only) == 0 {
			return fmt.Errorf("-only %q is part of none of %s", *only, strings.Join(contestants(), ", "))
		}
		r, err := runLoad(ctx, o)
		if err != nil {
			return err
		}
		page = r.page()
	case "backlog":
		page, err = runBacklog(ctx, backlogOptions{common: c, pending: *pending})
	case "soak":
		page, err = runSoak(ctx, c)
	case "isolation":
		if *fault == "" {
			*fault = filepath.Join(c.bin, "bench", "callbackd-sink-fault")
		}
		if *rate < 1 || *rate > 1e6 {
			return errors.New("-rate has to be from 1 to 1000000")
		}
		page, err = runIsolation(ctx, isolationOptions{common: c, rounds: *rounds, rate: *rate, fault: *fault, only: *only})
	default:
		return fmt.Errorf("there is no scenario %q: there are load, backlog, soak, isolation and deliver", scenario)
	}
	if err != nil {
		return err
	}
	fmt.Print(page)
	if c.write != "" {
		return writePart(c.write, scenario, page)
	}
	return nil
}

// check bounds what the flags ask for: a run has to end by itself.
func (c *common) check(rounds int) error {
	switch {
	case c.duration < 100*time.Millisecond || c.duration > 24*time.Hour:
		return errors.New("-duration has to be from 100ms to 24h")
	case c.warmup < 0 || c.warmup > time.Minute:
		return errors.New("-warmup has to be from 0s to 1m")
	case rounds < 1 || rounds > 100:
		return errors.New("-rounds has to be from 1 to 100")
	case c.body < 1 || c.body > 32<<20:
		return errors.New("-body has to be from 1 to 33554432")
	case c.threads < 1 || c.threads > 256:
		return errors.New("-threads has to be from 1 to 256")
	}
	return nil
}

func parseList(text string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > 4096 {
			return nil, fmt.Errorf("%q is not a number of connections from 1 to 4096", part)
		}
		out = append(out, n)
	}
	return out, nil
}
