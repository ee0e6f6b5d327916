package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/judge"
	"github.com/walhook/walhook/test/checker/truth"
)

// run is one call of the checker: a server, and episodes on it.
type run struct {
	options options
	seed    uint64
	dir     string // of everything that is written
	program string // the relay
	server  *server
	began   time.Time
	total   total

	mu    sync.Mutex
	kills int
	hits  map[string]int // of kill points and fault classes, with a delivery in flight where there can be one
}

func newRun(ctx context.Context, o options) (_ *run, err error) {
	r := &run{options: o, seed: o.seed, dir: o.dir, began: time.Now(), hits: map[string]int{}}
	if o.replay != "" {
		if err := r.recall(o.replay); err != nil {
			return nil, err
		}
	}
	if r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "walhook-checker-"); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	r.say("seed %d, records in %s", r.seed, r.dir)
	if err := r.build(ctx); err != nil {
		return nil, err
	}
	r.server, err = startServer(ctx)
	return r, err
}

// build makes the program under test, with kill points and mistakes.
func (r *run) build(ctx context.Context) error {
	r.program = filepath.Join(r.dir, "walhook")
	args := []string{"build", "-tags", "checker", "-o", r.program}
	if r.options.race {
		args = append(args, "-race")
	}
	output, err := exec.CommandContext(ctx, "go", append(args, "github.com/walhook/walhook/cmd/walhook")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the relay: %w\n%s", err, output)
	}
	return nil
}

// close ends the server. The records stay only if something is wrong, or if their place was asked for.
func (r *run) close() {
	if r.server != nil {
		if err := r.server.Close(); err != nil {
			r.say("stop Postgres: %v", err)
		}
	}
	_ = os.Remove(r.program)
	if r.options.dir == "" && len(r.total.folders) == 0 {
		_ = os.RemoveAll(r.dir)
	}
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// hit counts a fault. One that struck while nothing was in flight proves nothing, but set-up has none.
func (r *run) hit(f history.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.HasPrefix(f.Class, "kill-") {
		r.kills++
	}
	if f.InFlight > 0 || strings.HasPrefix(f.Point, "migrate.") || strings.HasPrefix(f.Point, "setup.") {
		r.hits[f.Class]++
		if f.Point != "" {
			r.hits[f.Point]++
		}
	}
}

// missing lists what has not been hit yet.
func (r *run) missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, name := range everything() {
		if r.hits[name] == 0 {
			all = append(all, name)
		}
	}
	for _, sight := range judge.Sights() {
		if !slices.ContainsFunc(r.total.verdicts, func(v judge.Verdict) bool { return v.Seen[sight] > 0 }) {
			all = append(all, sight)
		}
	}
	return all
}

// everything is what a valid run has hit: each kill point and each class of faults.
func everything() []string {
	all := []string{killPoint, killRandom, invalidate.class}
	for _, p := range append(setUpPoints(), workPoints()...) {
		all = append(all, string(p))
	}
	for _, f := range faults {
		all = append(all, f.class)
	}
	return all
}

// enough reports whether the run may end: it has had its kills or its time, and has tried everything. A slow
// machine may take three times as long for that; then the run ends and is not valid.
func (r *run) enough() bool {
	r.mu.Lock()
	kills := r.kills
	r.mu.Unlock()
	took, bound := time.Since(r.began), r.options.duration
	if bound > 0 && took > 3*bound {
		return true
	}
	had := r.options.kills > 0 && kills >= r.options.kills || bound > 0 && took > bound
	return had && (r.partial() || len(r.missing()) == 0)
}

// partial reports whether the run was asked for a part only, which cannot be valid.
func (r *run) partial() bool { return len(r.options.only) > 0 || r.options.replay != "" }

// episodes plays until it is enough.
func (r *run) episodes(ctx context.Context) error {
	for number := r.options.episode; !r.enough() && ctx.Err() == nil; number++ {
		if err := r.one(ctx, number); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// replay plays one episode of an earlier run again, with the same seed: what is done is the same, when it
// takes effect may differ.
func (r *run) replay(ctx context.Context) error {
	r.options.kills, r.options.duration = 0, 0 // to the episode's end
	return r.one(ctx, r.options.episode)
}

// one plays an episode with the actions that the seed gives it, and judges it.
func (r *run) one(ctx context.Context, number int) error {
	actions, calm := draw(r.seed, number, r.options.actions)
	if len(r.options.only) > 0 {
		actions, calm = fromNames(r.options.only...), false
	}
	e, err := newEpisode(ctx, r, number, "")
	if err != nil {
		return fmt.Errorf("episode %d: %w", number, err)
	}
	defer e.close()
	if e.calm = calm; !calm && number%4 == 0 && len(r.options.only) == 0 {
		e.last = &invalidate
	}
	err = e.play(ctx, actions)
	e.collect()
	if err != nil {
		return fmt.Errorf("episode %d: %w", number, errors.Join(err, r.keep(e)))
	}
	return r.judge(e)
}

// judge makes the verdict, and keeps the records of an episode with findings.
func (r *run) judge(e *episode) error {
	began := time.Now()
	v := judge.Judge(&e.h, truth.Expect(e.h.Txs))
	r.total.add(v)
	r.say("episode %d: %d events, %d deliveries, lost %d, phantom %d, duplicates %d, unexplained %d, order %d, batches %d (judged in %.1f s)", e.h.Episode,
		v.Events, v.Deliveries, v.Lost, v.Phantom, v.Duplicates, v.Unexplained, v.OrderViolations, v.Batches, time.Since(began).Seconds())
	if len(v.Findings) == 0 {
		return os.RemoveAll(e.dir)
	}
	for _, f := range v.Findings {
		r.say("  %s: %s", f.Kind, f.Detail)
	}
	return r.keep(e)
}

// keep leaves the records of an episode that something is wrong with.
func (r *run) keep(e *episode) error {
	r.total.keep(e.dir)
	r.say("records in %s; go run ./test/checker --replay %s", e.dir, e.dir)
	return errors.Join(judge.Save(e.dir, &e.h), r.remember(e.dir))
}

// circumstances are what an episode was played with, beyond what its history says.
type circumstances struct {
	Seed     uint64   `json:"seed"`
	Episode  int      `json:"episode"`
	Writers  int      `json:"writers"`
	Rate     int      `json:"rate"`
	Actions  int      `json:"actions"`
	Only     []string `json:"only,omitempty"`
	Postgres string   `json:"postgres"`
	Go       string   `json:"go"`
	Platform string   `json:"platform"`
	Revision string   `json:"revision,omitempty"` // of walhook
}

const circumstancesFile = "run.json"

func (r *run) remember(dir string) error {
	c := circumstances{Seed: r.seed, Writers: r.options.writers, Rate: r.options.rate, Actions: r.options.actions, Only: r.options.only,
		Postgres: r.server.release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if _, err := fmt.Sscanf(filepath.Base(dir), "episode-%d", &c.Episode); err != nil {
		return fmt.Errorf("number of %s: %w", dir, err)
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		c.Revision = build.Main.Version
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, circumstancesFile), text, 0o644),
		os.WriteFile(filepath.Join(dir, "postgres.log"), []byte(r.server.Log()), 0o644))
}

// recall makes the run like the one that left the folder.
func (r *run) recall(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, circumstancesFile))
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	var c circumstances
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("replay: %s: %w", dir, err)
	}
	r.seed, r.options.episode, r.options.writers = c.Seed, c.Episode, c.Writers
	r.options.rate, r.options.actions, r.options.only = c.Rate, c.Actions, c.Only
	return nil
}

// verify judges the records of an episode again.
func verify(o options) (bool, error) {
	h, err := judge.Load(o.verify)
	if err != nil {
		return false, err
	}
	o.json = true
	v := judge.Judge(h, truth.Expect(h.Txs))
	return v.Clean(), show(o, v)
}

// total adds up the verdicts of a run's episodes.
type total struct {
	verdicts []judge.Verdict
	folders  []string // of episodes with findings
}

func (t *total) add(v judge.Verdict) { t.verdicts = append(t.verdicts, v) }

func (t *total) keep(dir string) {
	if !slices.Contains(t.folders, dir) {
		t.folders = append(t.folders, dir)
	}
}
