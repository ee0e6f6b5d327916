// Command checker is walhook's crash-consistency checker. It runs the relay against a throw-away Postgres under
// load, kills it at named points and at random, breaks everything it talks to, and then compares what receivers
// got with what the WAL says they should have got.
//
//	go run ./test/checker                    two minutes
//	go run ./test/checker --kills 2000       until so many kills
//	go run ./test/checker --only sigstop     this alone
//	go run ./test/checker --self-test        with deliberate bugs in the relay, each of which must be noticed
//	go run ./test/checker --replay DIR       the episode that a failed run left in DIR
//	go run ./test/checker --verify DIR       judges that episode's records again
//
// The exit code is 0 when nothing is wrong and everything was tried, 1 when not, 2 for wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/walhook/walhook/internal/fault"
)

// options are the command line.
type options struct {
	seed     uint64
	kills    int
	duration time.Duration
	selfTest bool
	bugs     []string
	only     []string
	json     bool
	race     bool
	dir      string
	replay   string
	verify   string
	episode  int
	writers  int
	rate     int
	actions  int
}

func parse(args []string) (options, error) {
	o := options{}
	f := pflag.NewFlagSet("checker", pflag.ContinueOnError)
	f.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()%1_000_000), "seed of workload, faults and receivers")
	f.IntVar(&o.kills, "kills", 0, "run until so many kills, and until everything was tried once")
	f.DurationVar(&o.duration, "duration", 0, "run for so long, and until everything was tried once, at most three times as long (default 2m, without --kills)")
	f.BoolVar(&o.selfTest, "self-test", false, "make deliberate mistakes in the relay, each of which must be noticed")
	f.StringSliceVar(&o.bugs, "bugs", nil, "with --self-test: only these")
	f.StringSliceVar(&o.only, "only", nil, "do these alone in an episode, in this order: classes of faults and kill points")
	f.BoolVar(&o.json, "json", false, "print the summary as one JSON object")
	f.BoolVar(&o.race, "race", false, "build the relay with the race detector")
	f.StringVar(&o.dir, "dir", "", "folder for logs and records (default a temporary one, kept only if something is wrong)")
	f.StringVar(&o.replay, "replay", "", "play the episode again whose folder this is")
	f.StringVar(&o.verify, "verify", "", "judge the episode again whose folder this is")
	f.IntVar(&o.episode, "episode", 0, "begin with this episode of the seed")
	f.IntVar(&o.writers, "writers", 6, "connections that write events")
	f.IntVar(&o.rate, "rate", 300, "events a second")
	f.IntVar(&o.actions, "actions", 80, "kills and faults in an episode")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	for _, flag := range []struct {
		name         string
		value, least int
	}{{"kills", o.kills, 0}, {"episode", o.episode, 0}, {"writers", o.writers, 1}, {"rate", o.rate, 1}, {"actions", o.actions, 1}} {
		if flag.value < flag.least {
			return o, fmt.Errorf("--%s %d: must be at least %d", flag.name, flag.value, flag.least)
		}
	}
	for _, name := range o.only {
		if !slices.Contains(everything(), name) || duringSetUp(fault.Kill(name)) || name == killPoint || name == invalidate.class {
			return o, fmt.Errorf("--only %q: there is no such action; there are %v", name, everything())
		}
	}
	for _, bug := range o.bugs {
		if !slices.Contains(fault.Mistakes(), fault.Mistake(bug)) {
			return o, fmt.Errorf("--bugs %q: there is no such bug; there are %v", bug, fault.Mistakes())
		}
	}
	if o.duration < 0 {
		return o, fmt.Errorf("--duration %s: must not be negative", o.duration)
	}
	if o.kills == 0 && o.duration == 0 {
		o.duration = 2 * time.Minute
	}
	return o, nil
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "checker:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	good, err := check(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "checker:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

// check does what was asked for and prints the result. It reports whether that is a good one.
func check(ctx context.Context, o options) (bool, error) {
	if o.verify != "" {
		return verify(o)
	}
	r, err := newRun(ctx, o)
	if err != nil {
		return false, err
	}
	defer r.close()
	switch {
	case o.selfTest:
		result, err := r.selfTest(ctx)
		return result.good(), errors.Join(err, show(o, result))
	case o.replay != "":
		err = r.replay(ctx)
	default:
		err = r.episodes(ctx)
	}
	s := r.summary()
	if err != nil {
		s.Error, s.Valid = err.Error(), false
	}
	return s.good(), errors.Join(err, show(o, s))
}

// show prints a result on standard output.
func show(o options, result any) error {
	if !o.json {
		_, err := fmt.Println(result)
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
