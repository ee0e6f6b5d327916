package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// benchOptions are the benchmark's sizes.
type benchOptions struct {
	events, latencyEvents, deadEvents int
	rate, connections                 int
	rounds, latencyRounds             int
	idle, flooded                     time.Duration
}

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	var asJSON bool
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure the relay on this machine, beside the raw limits measured in the same run",
		Long: "Measure throughput, latency, cost in Postgres and memory, idle and flooded as well. A throw-away Postgres, a receiver and the relay run as\n" +
			"processes of their own on loopback. Throughput and latency alternate with what limits them: a plain HTTP client\n" +
			"that posts the same bodies, and a bare loop from the replication stream to a POST. Figures are medians over the\n" +
			"rounds; each round is told on standard error. Reads CPU times from /proc, so it needs Linux.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			result, err := a.bench(c.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(result)
			}
			_, err = fmt.Fprint(a.stdout, result.text())
			return err
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	f.IntVar(&o.events, "events", 100_000, "events in the backlog of each throughput round")
	f.IntVar(&o.latencyEvents, "latency-events", 2000, "events timed through the relay, and as many through the bare loop")
	f.IntVar(&o.deadEvents, "dead-events", 500_000, "events that arrive while every receiver refuses connections; 0 leaves this part out")
	f.IntVar(&o.rate, "rate", 200, "events a second while latency is measured")
	f.IntVar(&o.connections, "connections", 64, "connections to the receiver, of the plain client and of the relay")
	f.IntVar(&o.rounds, "rounds", 3, "throughput rounds")
	f.IntVar(&o.latencyRounds, "latency-rounds", 5, "latency rounds, which share the events")
	f.DurationVar(&o.idle, "idle", time.Minute, "how long nothing happens while the cost of an idle relay is measured, and as long without one; 0s leaves this part out")
	f.DurationVar(&o.flooded, "flood", 5*time.Second, "how long a round of unrelated writes lasts, beside the relay and beside the bare loop; 0s leaves this part out")
	return c
}

// validate names what cannot be measured.
func (o benchOptions) validate() error {
	var problems []error
	for _, v := range []struct {
		flag            string
		value, min, max int
	}{
		{"events", o.events, 2, 10_000_000},
		{"latency-events", o.latencyEvents, o.latencyRounds, 1_000_000},
		{"dead-events", o.deadEvents, 0, 10_000_000},
		{"rate", o.rate, 1, 100_000},
		{"connections", o.connections, 1, 1000},
		{"rounds", o.rounds, 1, 100},
		{"latency-rounds", o.latencyRounds, 1, 100},
	} {
		if v.value < v.min || v.value > v.max {
			problems = append(problems, fmt.Errorf("--%s %d: give a number from %d to %d", v.flag, v.value, v.min, v.max))
		}
	}
	for _, v := range []struct {
		flag  string
		value time.Duration
	}{{"idle", o.idle}, {"flood", o.flooded}} {
		if v.value < 0 || v.value > time.Hour {
			problems = append(problems, fmt.Errorf("--%s %s: give a duration from 0s to 1h", v.flag, v.value))
		}
	}
	if runtime.GOOS != "linux" {
		problems = append(problems, fmt.Errorf("bench reads CPU times from /proc, which %s does not have: run it on Linux", runtime.GOOS))
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w: %w", errUsage, errors.Join(problems...))
	}
	return nil
}

// bench is one run: the processes, and what they are to do.
type bench struct {
	benchOptions
	app      *app
	dir      string // an empty working directory: no configuration file applies
	db       *benchDatabase
	receiver *benchReceiverProcess
	result   benchResult
	relays   int // started so far
}

// bench measures everything in turn.
func (a *app) bench(ctx context.Context, o benchOptions) (*benchResult, error) {
	dir, err := os.MkdirTemp("", "walhook-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the benchmark: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{benchOptions: o, app: a, dir: dir}
	if b.receiver, err = startReceiver(dir); err != nil {
		return nil, err
	}
	defer b.receiver.kill()
	b.note("starting Postgres")
	if b.db, err = startDatabase(ctx); err != nil {
		return nil, err
	}
	defer b.db.close()
	if err := b.db.subscribe(ctx, b.receiver.Hooks, b.connections); err != nil {
		return nil, err
	}
	if err := b.describe(ctx); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) error{b.throughput, b.batched, b.latency, b.rest, b.unrelated, b.dead} {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	return &b.result, nil
}

// note tells what happens, on standard error.
func (b *bench) note(format string, args ...any) {
	_, _ = fmt.Fprintf(b.app.stderr, "bench: "+format+"\n", args...)
}

// startRelay executes walhook run as a user would, with nothing configured but where the database is.
func (b *bench) startRelay() (*benchChild, error) {
	b.relays++
	env := []string{}
	if path := os.Getenv(profileVariable); path != "" {
		if absolute, err := filepath.Abs(path); err == nil {
			env = append(env, profileVariable+"="+absolute+"."+strconv.Itoa(b.relays))
		}
	}
	return startBenchChild(b.dir, env, "run", "--database-url", b.db.url, "--listen", "127.0.0.1:0",
		"--delivery-allow-loopback", "always", "--log-level", "warn", "--log-format", "json")
}
