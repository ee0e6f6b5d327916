// Package workload is what applications and people do to the database while the checker breaks things: writers
// publish events in transactions of every shape, and a changer of subscriptions works beside them. It survives a
// server that is stopped, killed and restarted, and it writes down of every transaction what became of it, or
// that nobody can know. What it does depends on the seed alone, when it does it does not.
package workload

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/walhook/walhook/test/checker/history"
)

// Options say where the workload goes and how much of it there is.
type Options struct {
	URL       string   // of the database, directly and not through a proxy; the role may end its own sessions
	Seed      uint64   // decides what is written and changed
	Receivers string   // base URL; a subscription's requests go to /s/ and its id below it
	Writers   int      // default 4; each takes up to three of max_prepared_transactions
	Rate      int      // events a second of all writers together, nearly; default 300
	Orderings []string // what outbox.subscriptions.ordering may be set to; default only "none"
}

// patience bounds a transaction, which is not broken off when Run ends.
const patience = 30 * time.Second

// mostRows is how many events a transaction of a writer has at most.
const mostRows = 50

// Workload is the writers and the changer of one database. Prepare, Run and Settle are called one after the
// other; Huge, Big, Writes and Secrets at any time from any goroutine, the first two not during Settle.
type Workload struct {
	o       Options
	numbers atomic.Int64 // the last number that an event got
	limiter *rate.Limiter

	mu      sync.Mutex // guards what follows
	writes  []history.Write
	secrets []string
	open    []*prepared // left by the writers when Run ended
}

// New returns a workload that has not touched the database yet.
func New(o Options) *Workload {
	if o.Writers == 0 {
		o.Writers = 4
	}
	if o.Rate == 0 {
		o.Rate = 300
	}
	if len(o.Orderings) == 0 {
		o.Orderings = []string{"none"}
	}
	return &Workload{o: o, limiter: rate.NewLimiter(rate.Limit(o.Rate), mostRows)}
}

// The streams of random numbers of a seed: writers have 0 and up, others begin at these.
const (
	changerStream = 1 << 32 // one stream for each change, so that what one change needs does not move the next
	bulkStream    = 1 << 48
)

func (w *Workload) stream(n uint64) *rand.Rand { return rand.New(rand.NewPCG(w.o.Seed, n)) }

// Run writes and changes until ctx ends, which is no error. An error is a statement that failed though no fault
// explains it. Transactions that have begun are finished first, which may take half a minute on a server that
// does not answer; those that are prepared and wait for their fate are left to Settle.
func (w *Workload) Run(ctx context.Context) error {
	return w.run(ctx, math.MaxInt, math.MaxInt, time.Second)
}

// run ends after so many transactions of each writer and so many changes, too.
func (w *Workload) run(ctx context.Context, transactions, changes int, changeEvery time.Duration) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range w.o.Writers {
		group.Go(func() error { return w.write(ctx, i, transactions) })
	}
	group.Go(func() error { return w.change(ctx, changes, changeEvery) })
	return group.Wait()
}

// unlessOver hides the error of a step that failed because ctx has ended.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// Writes returns every transaction with events whose outcome is settled so far. After Settle it is all of them.
func (w *Workload) Writes() []history.Write {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.writes)
}

// Secrets returns every secret that a subscription was ever given, or would have been had its transaction not
// failed. None may appear in any output.
func (w *Workload) Secrets() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.secrets)
}

// log writes down the outcome of a transaction, if it had events.
func (w *Workload) log(write history.Write, outcome history.Outcome) {
	if len(write.Kept)+len(write.Undone) == 0 {
		return
	}
	write.At, write.Outcome = time.Now(), outcome
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes = append(w.writes, write)
}
