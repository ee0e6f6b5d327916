package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/judge"
	"github.com/walhook/walhook/test/checker/truth"
)

// trial is how a deliberate mistake is brought to light: what the nemesis does while the relay makes it, and
// what the checker may call it. That it gets stuck proves nothing: so might the checker.
type trial struct {
	mistake fault.Mistake
	actions []string // by class or kill point
	kinds   []history.Kind
}

// trials has one for every mistake there is.
var trials = []trial{
	{fault.ConfirmEarly, []string{"record.began", "record.cut", "record.before_commit"}, []history.Kind{history.Position, history.Lost}},
	{fault.ConfirmPlusOne, []string{"kill-random", "record.recorded", "kill-random"}, []history.Kind{history.Position, history.Lost}},
	{fault.ZeroFlush, []string{"receiver-slow", "record.began"}, []history.Kind{history.Position, history.Lost}},
	{fault.CheckpointMax, []string{"receiver-flap", "receiver-slow", "kill-random"}, []history.Kind{history.Lost, history.Position}},
	{fault.EpochIgnored, []string{"sigstop", "sigstop"}, []history.Kind{history.Duplicate, history.Position, history.Lost}},
	{fault.FilterErrorDrops, []string{"claimer.invalid_noted", "kill-random"}, []history.Kind{history.Lost, history.Position}},
	{fault.RetryNewID, []string{"receiver-error", "receiver-flap"}, []history.Kind{history.Identity}},
	{fault.SubtransactionDelivered, []string{"kill-random"}, []history.Kind{history.Phantom, history.Lost}},
	{fault.ConfigLate, []string{"route.changed", "kill-random"}, []history.Kind{history.Phantom, history.Lost}},
	{fault.SpillForgotten, []string{"receiver-hang", "receiver-slow", "record.spilled"}, []history.Kind{history.Lost, history.Position}},
	{fault.LeaseNotRenewed, []string{"receiver-flap", "receiver-slow", "receiver-slow"}, []history.Kind{history.Duplicate}},
	{fault.ReplayNotSkipped, []string{"record.recorded", "record.after_commit", "postgres-immediate"}, []history.Kind{history.Duplicate}},
	{fault.DeadLetterForgotten, []string{"receiver-error", "record.dead_letters_copied", "receiver-error"}, []history.Kind{history.Lost, history.Position}},
	{fault.FailureTakenForSuccess, []string{"receiver-error"}, []history.Kind{history.Lost}},
	{fault.BodyChanges, []string{"receiver-error"}, []history.Kind{history.Identity}},
	{fault.SecretLogged, []string{"kill-random"}, []history.Kind{history.Secret}},
	{fault.UnknownCommitDropped, []string{"link-postgres-cut", "postgres-immediate", "link-postgres-cut"}, []history.Kind{history.Lost, history.Position}},
	{fault.OrderIgnored, []string{"receiver-slow"}, []history.Kind{history.Order}},
	{fault.FreshOvertakes, []string{"receiver-flap"}, []history.Kind{history.Order}},
	{fault.WakeForgotten, []string{"receiver-flap", "sigterm"}, []history.Kind{history.Stranded}},
	{fault.BatchSplitLost, []string{"receiver-flap", "receiver-flap"}, []history.Kind{history.Lost, history.Position}},
	{fault.BatchForgotten, []string{"receiver-flap", "receiver-flap"}, []history.Kind{history.Batch}},
	{fault.OldSecretKept, []string{"secrets-rotated"}, []history.Kind{history.Identity}},
	{fault.EventSkipped, []string{"kill-random", "sigterm"}, []history.Kind{history.Unaccounted}},
	{fault.RecoverFromLast, []string{"slot-dropped"}, []history.Kind{history.Lost, history.Position}},
	{fault.RecoverRepeats, []string{"receiver-flap", "slot-dropped"}, []history.Kind{history.Duplicate}},
	{fault.MarkEarly, []string{"huge-transaction", "recover.slot"}, []history.Kind{history.Lost, history.Position}},
}

// caught is the result of a self-test.
type caught struct {
	Seed    uint64   `json:"seed"`
	Seconds float64  `json:"seconds"`
	Bugs    int      `json:"bugs"`
	Caught  int      `json:"caught"`
	Missed  []string `json:"missed"`
	Clean   bool     `json:"clean"` // nothing is found where no mistake is made
	Trials  []result `json:"trials"`
}

// result is what became of one trial.
type result struct {
	Bug     string               `json:"bug"`
	Caught  bool                 `json:"caught"`
	Tries   int                  `json:"tries"`
	Seconds float64              `json:"seconds"`
	Found   map[history.Kind]int `json:"found"`
	Example string               `json:"example,omitempty"`
}

func (c caught) good() bool { return c.Clean && c.Bugs > 0 && c.Caught == c.Bugs }

// String is the result for people.
func (c caught) String() string {
	var b strings.Builder
	for _, t := range c.Trials {
		mark := "MISSED"
		if t.Caught {
			mark = "caught"
		}
		fmt.Fprintf(&b, "%-28s %s in %4.1f s: %v %s\n", t.Bug, mark, t.Seconds, t.Found, t.Example)
	}
	fmt.Fprintf(&b, "seed %d: %d bugs, %d caught in %.0f s", c.Seed, c.Bugs, c.Caught, c.Seconds)
	if !c.Clean {
		b.WriteString("; and WRONG: there were findings without a bug")
	}
	return b.String()
}

// selfTest makes one mistake after the other. None at all comes first: what is found then is no proof of anything.
func (r *run) selfTest(ctx context.Context) (caught, error) {
	c := caught{Seed: r.seed, Missed: []string{}, Trials: []result{}}
	clean, err := r.try(ctx, 0, trial{actions: []string{"kill-random", "receiver-flap", "sigstop", "postgres-immediate"}})
	if err != nil {
		return c, err
	}
	c.Clean = len(clean.Found) == 0
	for i, t := range trials {
		if len(r.options.bugs) > 0 && !slices.Contains(r.options.bugs, string(t.mistake)) {
			continue
		}
		res, err := r.tries(ctx, i, t)
		if err != nil {
			return c, err
		}
		c.Trials = append(c.Trials, res)
		c.Bugs++
		if res.Caught {
			c.Caught++
		} else {
			c.Missed = append(c.Missed, res.Bug)
		}
	}
	c.Seconds = time.Since(r.began).Seconds()
	return c, ctx.Err()
}

// tries makes the mistake until it is caught, eight times at most: a mistake may need luck to matter.
func (r *run) tries(ctx context.Context, number int, t trial) (result, error) {
	const most = 8
	began := time.Now()
	for n := 1; ; n++ {
		res, err := r.try(ctx, 100+10*number+n, t)
		res.Tries, res.Seconds = n, time.Since(began).Seconds()
		if err != nil || res.Caught || n == most {
			r.say("%s: caught %v: %v %s", t.mistake, res.Caught, res.Found, res.Example)
			return res, err
		}
	}
}

// try plays an episode with the mistake.
func (r *run) try(ctx context.Context, number int, t trial) (result, error) {
	res := result{Bug: string(t.mistake)}
	e, err := newEpisode(ctx, r, number, string(t.mistake))
	if err != nil {
		return res, err
	}
	defer e.close()
	e.brief, e.proof = true, t.kinds
	if err = e.play(ctx, fromNames(t.actions...)); ctx.Err() != nil {
		return res, err
	}
	e.collect()
	if err != nil && !errors.Is(err, context.Canceled) { // a relay that halts, for one, cannot be brought to the end
		e.finding(history.Stuck, "%v", err)
	}
	v := judge.Judge(&e.h, truth.Expect(e.h.Txs))
	res.Found = v.Counts
	for _, f := range v.Findings {
		if slices.Contains(t.kinds, f.Kind) {
			res.Caught, res.Example = true, string(f.Kind)+": "+f.Detail
			break
		}
	}
	if t.mistake == "" && len(v.Counts) > 0 {
		for _, f := range v.Findings {
			r.say("  %s: %s", f.Kind, f.Detail)
		}
		return res, r.keep(e)
	}
	return res, os.RemoveAll(e.dir)
}
