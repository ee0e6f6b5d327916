package dispatch_test

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/dispatch"
)

// model is what surrounds a dispatcher in a relay, reduced to its rules: a window that records prefixes, a queue that
// gives out the heads of sequences, receivers with moods, and a judge of what is sent.
type model struct {
	*dispatch.Dispatcher
	senders int

	mu       sync.Mutex
	seed     uint64
	healed   bool // receivers take everything
	settings map[uuid.UUID]*delivery.Settings
	rows     []*row  // the queue, in commit order
	items    []*item // the window
	settled  []settlement
	recorded delivery.Position
	open     map[uuid.UUID]map[string][]*delivery.Delivery // by lane and sequence, in commit order: what has not ended
	left     int                                           // deliveries that have not ended
	started  map[uuid.UUID]int                             // attempts
	underWay map[uuid.UUID]bool
	inFlight map[uuid.UUID]int // requests; uuid.Nil: over all lanes
	wrong    []string
}

// item is a delivery in the window.
type item struct {
	of    *delivery.Delivery
	added time.Time
	state string // "", "declined", "over" or "failed"
	due   time.Time
	batch uuid.UUID
}

// row is a delivery in the queue.
type row struct {
	of     delivery.Delivery
	due    time.Time
	held   bool
	leased bool
}

type settlement struct {
	of       *delivery.Delivery
	over     bool
	released bool
	due      time.Time
	batch    uuid.UUID
}

const (
	modelSpill  = time.Second
	modelRecord = 20 * time.Millisecond
)

func newModel(ctx context.Context, seed uint64, senders int) *model {
	m := &model{senders: senders, seed: seed, settings: map[uuid.UUID]*delivery.Settings{}, open: map[uuid.UUID]map[string][]*delivery.Delivery{},
		started: map[uuid.UUID]int{}, underWay: map[uuid.UUID]bool{}, inFlight: map[uuid.UUID]int{}}
	m.Dispatcher = dispatch.New(ctx, dispatch.Options{MaxSenders: senders, MaxClaimedBytes: claimedBytes, Hungry: func() {}}, m, m)
	return m
}

// wrongly notes what must not be.
func (m *model) wrongly(format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

// mood is a number that depends on the seed and on an attempt.
func (m *model) mood(d *delivery.Delivery, attempt int) uint64 {
	h := fnv.New64()
	_, _ = fmt.Fprint(h, m.seed, d.Event.Position, attempt)
	return h.Sum64()
}

// Send judges a request and answers it by its mood.
func (m *model) Send(ctx context.Context, batch []*delivery.Delivery, s *delivery.Settings) delivery.Outcome {
	m.mu.Lock()
	m.judge(batch, s)
	mood := m.mood(batch[0], m.started[batch[0].ID])
	healed := m.healed
	for _, d := range batch {
		m.started[d.ID]++
		m.underWay[d.ID] = true
	}
	m.mu.Unlock()
	o := delivery.Outcome{}
	if mood%3 == 0 && !healed {
		o.Reason = delivery.ReasonStatus
	}
	while := time.Duration(mood/3%5) * 700 * time.Millisecond
	if healed {
		while = 10 * time.Millisecond
	}
	select {
	case <-time.After(while):
	case <-ctx.Done():
		o.Reason = delivery.ReasonStopped
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight[s.SubscriptionID]--
	m.inFlight[uuid.Nil]--
	return o
}

// judge checks the rule of a sequence and the limits.
func (m *model) judge(batch []*delivery.Delivery, s *delivery.Settings) {
	with := map[uuid.UUID]bool{}
	for i, d := range batch {
		if m.underWay[d.ID] {
			m.wrongly("%s is under way twice", d.Event.Key)
		}
		for _, earlier := range m.open[d.SubscriptionID][d.Sequence] {
			if d.Sequence != "" && d.Event.Position.After(earlier.Event.Position) && !with[earlier.ID] {
				m.wrongly("%s of %q started while %s was unfinished", d.Event.Key, d.Sequence, earlier.Event.Key)
			}
		}
		with[d.ID] = true
		if i > 0 && d.Batch != batch[0].Batch {
			m.wrongly("%s and %s failed in different requests", batch[0].Event.Key, d.Event.Key)
		}
		if !d.Lease.IsZero() && time.Now().Add(s.Timeout).After(d.Lease) {
			m.wrongly("the lease of %s may end under the attempt", d.Event.Key)
		}
	}
	if len(batch) > max(1, s.BatchSize) && batch[0].Batch == uuid.Nil {
		m.wrongly("%d deliveries in a request", len(batch))
	}
	m.inFlight[s.SubscriptionID]++
	m.inFlight[uuid.Nil]++
	if m.inFlight[s.SubscriptionID] > 4 || m.inFlight[uuid.Nil] > m.senders { // 4 is the most that max_in_flight ever is
		m.wrongly("%d requests of a lane, %d in all", m.inFlight[s.SubscriptionID], m.inFlight[uuid.Nil])
	}
}

// Finished takes an outcome, as the window does.
func (m *model) Finished(batch []*delivery.Delivery, _ *delivery.Settings, o delivery.Outcome) (over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	due, id := time.Now(), uuid.Nil
	if o.Reason == delivery.ReasonStatus {
		due = due.Add(1500 * time.Millisecond)
		if len(batch) > 1 {
			id = delivery.BatchID(ids(batch))
		}
	}
	for _, d := range batch {
		delete(m.underWay, d.ID)
		if o.Succeeded() {
			m.end(d)
		}
		if d.Queued {
			m.settled = append(m.settled, settlement{of: d, over: o.Succeeded(), released: !o.Counts(), due: due, batch: id})
			continue
		}
		i := m.item(d)
		i.state, i.due, i.batch = "failed", due, id
		if o.Succeeded() {
			i.state = "over"
		} else if !o.Counts() {
			i.state = "declined"
		}
	}
	return o.Succeeded()
}

// end forgets a delivery that a receiver took.
func (m *model) end(d *delivery.Delivery) {
	m.left--
	all := m.open[d.SubscriptionID]
	all[d.Sequence] = slices.DeleteFunc(all[d.Sequence], func(o *delivery.Delivery) bool { return o.ID == d.ID })
}

func (m *model) item(d *delivery.Delivery) *item {
	for _, i := range m.items {
		if i.of.ID == d.ID {
			return i
		}
	}
	panic("no item of " + d.Event.Key)
}

func (m *model) Released(all []*delivery.Delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range all {
		m.release(d)
	}
}

func (m *model) release(d *delivery.Delivery) {
	if d.Queued {
		m.settled = append(m.settled, settlement{of: d, released: true})
		return
	}
	m.item(d).state = "declined"
}

// enter brings a delivery into the window and offers it.
func (m *model) enter(d *delivery.Delivery) {
	m.mu.Lock()
	m.items = append(m.items, &item{of: d, added: time.Now()})
	m.left++
	if m.open[d.SubscriptionID] == nil {
		m.open[d.SubscriptionID] = map[string][]*delivery.Delivery{}
	}
	m.open[d.SubscriptionID][d.Sequence] = append(m.open[d.SubscriptionID][d.Sequence], d)
	m.mu.Unlock()
	if !m.Offer(d) {
		m.mu.Lock()
		m.release(d)
		m.mu.Unlock()
	}
}

// record is a record transaction.
func (m *model) record(all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for n < len(m.items) && (m.items[n].state != "" || all || time.Since(m.items[n].added) >= modelSpill) {
		m.put(m.items[n])
		n++
	}
	m.items = m.items[n:]
	settled := m.settled
	m.settled = nil
	for _, s := range settled {
		m.settle(s)
	}
	seen := map[[2]string]bool{}
	for _, r := range m.rows {
		at := [2]string{r.of.SubscriptionID.String(), r.of.Sequence}
		if r.of.Sequence != "" && !seen[at] && r.held {
			r.held, r.due = false, time.Now()
		}
		seen[at] = true
	}
}

// put makes a row of what has not ended.
func (m *model) put(i *item) {
	m.recorded = i.of.Event.Position
	r := &row{of: *i.of, due: i.due, held: i.of.Sequence != ""}
	switch i.state {
	case "over":
		return
	case "failed":
		r.held = false
		r.of.Attempts, r.of.Round, r.of.Batch = 1, 1, i.batch
	case "":
		i.of.Queued = true
		m.mu.Unlock() // the dispatcher calls the window under no lock of its own, but holds its own when it is called
		underWay := m.Withdraw(i.of)
		m.mu.Lock()
		if underWay {
			r.held, r.leased, r.due = false, true, time.Now().Add(time.Hour)
		}
	}
	r.of.Queued = true
	m.rows = append(m.rows, r)
	slices.SortStableFunc(m.rows, func(a, b *row) int { return a.of.Event.Position.Compare(b.of.Event.Position) })
}

func (m *model) settle(s settlement) {
	at := slices.IndexFunc(m.rows, func(r *row) bool { return r.of.ID == s.of.ID })
	if at < 0 {
		m.wrongly("%s has no row", s.of.Event.Key)
		return
	}
	r := m.rows[at]
	switch {
	case s.over:
		m.rows = slices.Delete(m.rows, at, at+1)
	case s.released:
		r.leased, r.held, r.due = false, s.of.Sequence != "", time.Now()
	default:
		r.leased, r.due = false, s.due
		r.of.Attempts, r.of.Round, r.of.Batch = r.of.Attempts+1, r.of.Round+1, s.batch
	}
}

// claim is a claim step: rows that are due, first of their sequence, and what follows them.
func (m *model) claim() {
	m.mu.Lock()
	recorded, waits, due := m.recorded, map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	now := time.Now()
	for _, r := range m.rows {
		waits[r.of.SubscriptionID] = true
		due[r.of.SubscriptionID] = due[r.of.SubscriptionID] || !r.held && !r.due.After(now)
	}
	m.mu.Unlock()
	m.Drained(func(id uuid.UUID) bool { return due[id] })
	m.CaughtUp(recorded, func(id uuid.UUID) bool { return waits[id] })
	var claimed []*delivery.Delivery
	m.Unreserve()
	for _, id := range slices.SortedFunc(maps(due), func(a, b uuid.UUID) int { return cmp.Compare(a.String(), b.String()) }) {
		n, known := m.Appetite(id, now)
		if s := m.Settings(id); known && s != nil && n > 0 {
			m.Reserve(id, n)
			claimed = append(claimed, m.lease(id, n, s)...)
		}
	}
	m.Unreserve()
	slices.SortFunc(claimed, func(a, b *delivery.Delivery) int { return a.Event.Position.Compare(b.Event.Position) })
	m.Released(m.Claimed(claimed))
}

// maps are the keys of those that are due.
func maps(due map[uuid.UUID]bool) func(func(uuid.UUID) bool) {
	return func(yield func(uuid.UUID) bool) {
		for id, is := range due {
			if is && !yield(id) {
				return
			}
		}
	}
}

// lease takes rows of one lane.
func (m *model) lease(id uuid.UUID, n int, s *delivery.Settings) (claimed []*delivery.Delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, blocked := time.Now(), map[string]bool{}
	answered := map[uuid.UUID]bool{}
	for _, o := range m.settled {
		answered[o.of.ID] = true
	}
	for _, r := range m.rows {
		if r.of.SubscriptionID != id || len(claimed) == n || blocked[r.of.Sequence] {
			continue
		}
		follows := r.held && slices.ContainsFunc(claimed, func(d *delivery.Delivery) bool { return d.Sequence == r.of.Sequence })
		if answered[r.of.ID] || !follows && (r.held || r.due.After(now)) {
			blocked[r.of.Sequence] = r.of.Sequence != ""
			continue
		}
		r.leased, r.held = true, false
		r.due = now.Add(s.Timeout + s.BatchWait + 2*time.Second)
		d := r.of
		d.Lease = r.due
		claimed = append(claimed, &d)
	}
	return claimed
}
