package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// demoSummary is what --json prints.
type demoSummary struct {
	Events     int     `json:"events"`     // committed
	Deliveries int     `json:"deliveries"` // of these events to the subscriptions that they match
	Delivered  int     `json:"delivered"`  // deliveries that a receiver took
	Retried    int     `json:"retried"`    // deliveries that a receiver refused at least once
	Dead       int     `json:"dead"`       // deliveries whose retries are exhausted
	Seconds    float64 `json:"seconds"`    // from the first transaction to the last outcome
	P50MS      float64 `json:"p50_ms"`     // commit to arrival of the first attempt
	P99MS      float64 `json:"p99_ms"`
}

const (
	ledgerSamples = 100_000 // latencies kept: the latest
	ledgerMemory  = 250_000 // deliveries of a kind remembered at least, to tell repetitions from phantoms
)

// demoLedger compares what the application committed with what the receivers got. It knows nothing of the
// relay. Deliveries are announced before their transaction is committed, because they may arrive before the
// application hears of its commit; an arrival of which the ledger knows nothing should not have happened:
// the event was rolled back, or does not match.
type demoLedger struct {
	mu       sync.Mutex
	open     map[uuid.UUID]*openDelivery
	done     idMemory // settled ones
	undone   idMemory // what must never arrive, because its transaction was rolled back
	guests   bool     // others may publish, test and replay: what nobody announced may arrive
	sum      demoSummary
	latency  []time.Duration
	arrivals int
	last     time.Time // arrival
	idle     chan struct{}

	pardoned bool // receivers may rightly refuse
	repeated int  // arrivals of what was taken already: at-least-once allows them
	phantoms int
	forged   int // arrivals whose signature or body was wrong
	problems []string
}

// openDelivery was announced and is not yet settled.
type openDelivery struct {
	committed, taken bool
	refused          int
}

// newDemoLedger makes an empty one. With guests others than the application may publish, test and replay.
func newDemoLedger(guests bool) *demoLedger {
	return &demoLedger{open: map[uuid.UUID]*openDelivery{}, guests: guests, last: time.Now()}
}

// announce notes deliveries that a transaction will cause if it is committed.
func (l *demoLedger) announce(ids []uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.open[id] = &openDelivery{}
	}
}

// rolledBack notes deliveries that must not come: nobody but the relay could make them up.
func (l *demoLedger) rolledBack(ids []uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.undone.add(id)
	}
}

// committed notes that the transaction was: its deliveries are due.
func (l *demoLedger) committed(events int, ids []uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.Events += events
	l.sum.Deliveries += len(ids)
	for _, id := range ids {
		d := l.open[id]
		d.committed = true
		l.settle(id, d)
	}
}

// arrived notes an attempt: after how long it came, and whether the receiver takes it.
func (l *demoLedger) arrived(id uuid.UUID, latency time.Duration, taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = time.Now()
	d := l.open[id]
	if d == nil {
		switch {
		case l.done.has(id):
			l.repeated++
		case !l.guests || l.undone.has(id):
			l.phantoms++
		}
		return
	}
	if !d.taken && d.refused == 0 {
		l.sample(latency)
	}
	switch {
	case taken:
		d.taken = true
	case d.refused == 0:
		l.sum.Retried++
		fallthrough
	default:
		d.refused++
	}
	l.settle(id, d)
}

func (l *demoLedger) sample(latency time.Duration) {
	if len(l.latency) < ledgerSamples {
		l.latency = append(l.latency, latency)
	} else {
		l.latency[l.arrivals%ledgerSamples] = latency
	}
	l.arrivals++
}

// settle closes a delivery that is both due and taken.
func (l *demoLedger) settle(id uuid.UUID, d *openDelivery) {
	if !d.committed || !d.taken {
		return
	}
	l.sum.Delivered++
	l.close(id)
}

func (l *demoLedger) close(id uuid.UUID) {
	delete(l.open, id)
	l.done.add(id)
	if l.idle != nil && len(l.open) == 0 {
		close(l.idle)
		l.idle = nil
	}
}

// bury notes that a delivery has become a dead letter.
func (l *demoLedger) bury(id uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[id] != nil {
		l.sum.Dead++
		l.close(id)
	}
}

// forgery notes a request that the relay should not have sent like this.
func (l *demoLedger) forgery() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forged++
}

// pardon notes that receivers may rightly have refused what came.
func (l *demoLedger) pardon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pardoned = true
}

// settled returns a channel that is closed as soon as nothing is open. Call it when nothing more will be
// announced, and once.
func (l *demoLedger) settled() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	idle := make(chan struct{})
	if len(l.open) == 0 {
		close(idle)
	} else {
		l.idle = idle
	}
	return idle
}

// sinceArrival is how long ago something arrived.
func (l *demoLedger) sinceArrival() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.last)
}

// events is how many were committed.
func (l *demoLedger) events() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum.Events
}

// summary returns the counts so far.
func (l *demoLedger) summary(took time.Duration) demoSummary {
	l.mu.Lock()
	s := l.sum
	sorted := slices.Clone(l.latency)
	l.mu.Unlock()
	slices.Sort(sorted)
	s.Seconds = took.Seconds()
	s.P50MS, s.P99MS = quantileMS(sorted, 0.50), quantileMS(sorted, 0.99)
	return s
}

// quantileMS is the smallest value that at least the given share of the sorted ones does not exceed (nearest
// rank), in milliseconds; 0 when there are none.
func quantileMS(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(share * float64(len(sorted))))
	return sorted[max(rank, 1)-1].Seconds() * 1000
}

// recorded compares the counts with what the relay recorded. It is called when the relay has stopped, after
// everything was settled.
func (l *demoLedger) recorded(waiting, succeeded int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if waiting > 0 {
		l.problems = append(l.problems, fmt.Sprintf("%d deliveries still wait in outbox.queue", waiting))
	}
	if succeeded != l.sum.Delivered {
		l.problems = append(l.problems, fmt.Sprintf("receivers took %d deliveries, the calls log has %d", l.sum.Delivered, succeeded))
	}
	missing := 0
	for _, d := range l.open {
		if d.committed {
			missing++
		}
	}
	if missing > 0 {
		l.problems = append(l.problems, fmt.Sprintf("%d deliveries of committed events were not received", missing))
	}
}

// verdict is nil when everything was as promised.
func (l *demoLedger) verdict() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	problems := l.problems
	if l.phantoms > 0 {
		problems = append(problems, fmt.Sprintf("%d requests arrived for events that were rolled back or do not match", l.phantoms))
	}
	if l.forged > 0 && !l.pardoned {
		problems = append(problems, fmt.Sprintf("%d requests had a wrong signature or body", l.forged))
	}
	var all []error
	for _, p := range problems {
		all = append(all, errors.New(p))
	}
	return errors.Join(all...)
}

// idMemory remembers the latest ids, ledgerMemory at least, in two generations to bound the memory.
type idMemory struct{ now, before map[uuid.UUID]struct{} }

func (m *idMemory) add(id uuid.UUID) {
	if m.now == nil || len(m.now) >= ledgerMemory {
		m.now, m.before = map[uuid.UUID]struct{}{}, m.now
	}
	m.now[id] = struct{}{}
}

func (m *idMemory) has(id uuid.UUID) bool {
	_, now := m.now[id]
	_, before := m.before[id]
	return now || before
}
