package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/proxy"
	"github.com/walhook/walhook/test/checker/receive"
	"github.com/walhook/walhook/test/checker/truth"
	"github.com/walhook/walhook/test/checker/workload"
)

const (
	slot      = "walhook"
	truthSlot = "truth"
	role      = "walhook_under_test"
	password  = "canary-database-password" // trusted anyway; it must appear in no output
)

// episode is one database from its creation to its judgement.
type episode struct {
	run     *run
	dir     string
	rng     *rand.Rand
	name    string // of the database
	url     string // straight to it
	db      *pgxpool.Pool
	truth   *truth.Reader
	targets *receive.Server
	toHooks *proxy.Proxy // between relays and receivers
	a, b    *place
	main    *place // where the relay runs that works; the other one is for take-overs
	load    *workload.Workload
	tally   tally
	calm    bool   // no relay is killed
	bugs    string // deliberate ones, for the self-test
	brief   bool   // of the self-test: without kills during set-up and the look at resources, and always to its end

	last      *action            // ends the episode, when nothing is written any more
	delivered map[uuid.UUID]bool // in a snapshot
	replays   []replay           // that were asked for and are not known to be over
	held      bool               // rows of the queue, by hand
	truthRead bool               // all there will ever be

	recoveries int64 // the last row of outbox.recoveries that the history has

	proof []history.Kind     // of the mistake that is tried: the first finding of one of these ends the episode
	abort context.CancelFunc // ends it

	mu       sync.Mutex // guards what follows
	h        history.History
	slotLost bool // on purpose: positions are not sampled
	samples  int  // of positions
}

// newEpisode makes the database and everything around it.
func newEpisode(ctx context.Context, r *run, number int, bugs string) (_ *episode, err error) {
	seed := r.seed + uint64(number)
	e := &episode{run: r, dir: filepath.Join(r.dir, fmt.Sprintf("episode-%d", number)), rng: rand.New(rand.NewPCG(seed, 1)),
		name: fmt.Sprintf("episode_%d", number), bugs: bugs}
	e.h.Seed, e.h.Episode, e.h.Began, e.h.SpillAfterMS = r.seed, number, time.Now(), spillAfterMS
	made := false // the database
	defer func() {
		if err != nil && made {
			e.close()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return nil, err
	}
	if err := r.server.createDatabase(ctx, e.name); err != nil {
		return nil, err
	}
	made = true
	e.url = r.server.URL(e.name)
	if e.db, err = pgxpool.New(ctx, e.url); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s_%d", truthSlot, number)
	if err := truth.Create(ctx, e.url, name); err != nil {
		return nil, err
	}
	e.truth = truth.NewReader(e.url, name)
	e.truth.Tail(e.tally.add)
	if e.targets, err = receive.New(filepath.Join(e.dir, "receiver.log"), seed); err != nil {
		return nil, err
	}
	if e.toHooks, err = proxy.New(e.targets.Addr()); err != nil {
		return nil, err
	}
	if e.a, err = e.place("a"); err != nil {
		return nil, err
	}
	if e.b, err = e.place("b"); err != nil {
		return nil, err
	}
	e.main = e.a
	e.load = workload.New(workload.Options{URL: e.url, Seed: seed, Orderings: []string{"none", "key", "strict"},
		Receivers: "http://" + e.toHooks.Addr(), Writers: r.options.writers, Rate: r.options.rate})
	return e, nil
}

func (e *episode) place(name string) (*place, error) {
	server, err := url.Parse(e.url)
	if err != nil {
		return nil, err
	}
	link, err := proxy.New(server.Host)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Host: link.Addr(), Path: "/" + e.name, RawQuery: "sslmode=disable&connect_timeout=5"}
	return &place{name: name, program: e.run.program, database: u.String(), link: link, logs: e.dir}, nil
}

// close ends everything and drops the database.
func (e *episode) close() {
	for _, p := range []*place{e.a, e.b} {
		if p == nil {
			continue
		}
		if p.running() {
			p.now.signal(syscall.SIGCONT)
			p.now.kill()
		}
		e.must("close a link to Postgres", p.link.Close())
	}
	if e.toHooks != nil {
		e.must("close the link to the receivers", e.toHooks.Close())
	}
	if e.targets != nil {
		e.must("close the receivers' log", e.targets.Close())
	}
	if e.db != nil {
		e.db.Close()
	}
	e.must("drop the database", e.run.server.dropDatabase(context.Background(), e.name))
}

// must makes an error of the checker's own a finding: a run with one proves nothing.
func (e *episode) must(what string, err error) {
	if err != nil {
		e.finding(history.Truth, "%s: %v", what, err)
		e.run.total.keep(e.dir)
	}
}

// play runs the episode: set-up under fire, then the actions while applications write, then everything is
// healed and must drain. What went wrong is in the history; an error means that the checker itself could not go on.
func (e *episode) play(ctx context.Context, actions []action) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.abort = cancel
	var background errgroup.Group
	defer func() { cancel(); _ = background.Wait() }()
	background.Go(func() error { return e.truth.Run(ctx) })
	if err := e.setUp(ctx); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if err := e.load.Prepare(ctx); err != nil {
		return fmt.Errorf("prepare the workload: %w", err)
	}
	background.Go(func() error { e.samplePositions(ctx); return nil })
	defer func() {
		if e.samples < 100 && !e.brief && ctx.Err() == nil {
			e.finding(history.Truth, "the positions of slot and checkpoint were seen %d times only", e.samples)
		}
	}()
	stopWriting := e.write(ctx)
	defer func() { _ = stopWriting() }()
	for _, a := range actions {
		if ctx.Err() != nil || !e.brief && e.run.enough() {
			break
		}
		if err := e.act(ctx, a); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	if !e.brief {
		if err := e.trouble(ctx); err != nil {
			return err
		}
	}
	if err := stopWriting(); err != nil {
		return fmt.Errorf("workload: %w", err)
	}
	return e.finish(ctx)
}

// write begins the workload. The function it returns ends it, waits for that and tells what went wrong.
func (e *episode) write(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- e.load.Run(ctx) }()
	return sync.OnceValue(func() error {
		cancel()
		return <-done
	})
}

// act does one action, with a relay at work before and all links whole after it.
func (e *episode) act(ctx context.Context, a action) error {
	began := time.Now()
	err := a.do(e, ctx)
	e.toHooks.Release()
	e.toHooks.Refuse(false)
	e.main.link.Release()
	e.targets.Heal()
	e.closeReplays(ctx, false)
	e.run.say("episode %d: %-28s %6.2fs  in flight %d, expected %d, settled %d", e.h.Episode, a, time.Since(began).Seconds(),
		e.inFlight(), e.tally.expected(), e.targets.Settled())
	return err
}

// finish heals, drains, stops and takes the last look.
func (e *episode) finish(ctx context.Context) error {
	if err := e.load.Settle(ctx); err != nil {
		return fmt.Errorf("settle the workload: %w", err)
	}
	if err := e.recover(ctx); err != nil {
		return err
	}
	e.look(ctx)
	if !e.brief {
		if err := e.compareResources(ctx); err != nil {
			return fmt.Errorf("compare resources: %w", err)
		}
	}
	if err := e.audit(ctx); err != nil {
		return err
	}
	if e.last != nil && !e.h.DrainedAt.IsZero() {
		if err := e.act(ctx, *e.last); err != nil {
			return fmt.Errorf("%s: %w", e.last, err)
		}
		if err := e.recover(ctx); err != nil {
			return err
		}
		if err := e.audit(ctx); err != nil {
			return err
		}
	}
	e.compareRecoveries(ctx)
	e.stop(e.a)
	e.stop(e.b)
	e.h.StoppedAt = time.Now()
	if err := e.snapshot(ctx); err != nil {
		return err
	}
	e.lookForEnds()
	return errors.Join(e.lookForRepeats(ctx), e.lookForSecrets(ctx))
}

// collect completes the history, whether the episode came to its end or not.
func (e *episode) collect() {
	e.h.Txs, e.h.Writes, e.h.Receipts = e.truth.Txs(), e.load.Writes(), e.targets.Receipts()
	for _, stray := range e.targets.Strays() {
		e.finding(history.Phantom, "a request that no subscription asks for: %s", stray)
	}
}

func (e *episode) heal() {
	e.targets.Heal()
	e.toHooks.Release()
	e.toHooks.Refuse(false)
	e.a.link.Release()
	e.b.link.Release()
	e.h.HealedAt = time.Now()
}

// stop ends a relay in order: exit code 0, within the grace period and a bit.
func (e *episode) stop(p *place) {
	if !p.running() {
		return
	}
	f := history.Fault{Class: "sigterm", PID: p.now.pid(), Begin: time.Now(), InFlight: e.inFlight()}
	p.now.signal(syscall.SIGTERM)
	if !p.now.ended(30 * time.Second) {
		e.finding(history.Stuck, "relay %d did not end 30 s after SIGTERM: see %s", p.now.pid(), p.now.log)
		p.now.kill()
	} else if code := p.now.cmd.ProcessState.ExitCode(); code != 0 {
		e.finding(history.Stuck, "relay %d ended with exit code %d after SIGTERM: see %s", p.now.pid(), code, p.now.log)
	}
	f.End = time.Now()
	e.note(f)
	e.run.hit(f)
}

// inFlight counts deliveries that were committed lately and are not yet answered with 2xx.
func (e *episode) inFlight() int { return max(e.targets.Open(), e.tally.open(e.targets.Got)) }

func (e *episode) note(f history.Fault) {
	if f.End.IsZero() {
		f.End = time.Now()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.h.Faults = append(e.h.Faults, f)
}

func (e *episode) finding(kind history.Kind, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	e.run.say("episode %d: FINDING %s: %s", e.h.Episode, kind, text)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.h.Findings = append(e.h.Findings, history.Finding{Kind: kind, At: time.Now(), Detail: text})
	if slices.Contains(e.proof, kind) && e.abort != nil {
		e.abort()
	}
}

// retry repeats what needs Postgres while that is restarting.
func (e *episode) retry(ctx context.Context, f func() error) error {
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); wait(ctx, 20*time.Millisecond) {
		if err = f(); err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if strings.Contains(err.Error(), "SQLSTATE") && !strings.Contains(err.Error(), "SQLSTATE 57P") {
			return err // Postgres answered, and not that it is stopping
		}
	}
	return err
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
