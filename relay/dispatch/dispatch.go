// Package dispatch decides which delivery is attempted next: one lane per subscription with its own
// concurrency, rate and circuit, and a bounded pool of senders that serves the lanes in turn.
package dispatch

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// Sender makes one attempt. A failure is an outcome, not an error.
type Sender interface {
	Send(ctx context.Context, d *delivery.Delivery, s *delivery.Settings) delivery.Outcome
}

// Ledger takes what became of deliveries. It is called without the dispatcher's lock, by many senders.
type Ledger interface {
	// Finished takes the outcome of an attempt.
	Finished(d *delivery.Delivery, s *delivery.Settings, o delivery.Outcome)
	// Released takes deliveries that were not attempted and belong in the queue: claimed ones, and those from
	// memory whose lane is gone or falters.
	Released(all []*delivery.Delivery)
}

// Options of a Dispatcher.
type Options struct {
	MaxSenders      int    // attempts at a time, over all lanes
	MaxClaimedBytes int    // of the events of claimed deliveries, over all lanes; 0 is no limit
	Hungry          func() // called when a lane could take more from the queue; must not block
}

// Dispatcher holds the lanes. Safe for concurrent use.
type Dispatcher struct {
	options Options
	sender  Sender
	ledger  Ledger

	mu       sync.Mutex
	work     sync.Cond
	lanes    map[uuid.UUID]*lane
	ready    []*lane // lanes that may have something to start, in turn
	next     int     // head of ready
	inFlight int
	idle     int // senders that wait
	senders  int
	stopping bool
	claimed  int  // deliveries from the queue that are held, those under way included
	bytes    int  // of their events
	short    bool // the claimer had to leave lanes out for want of room
	waiters  sync.WaitGroup
	ctx      context.Context // of the attempts
}

// New returns a dispatcher without lanes. ctx ends attempts that are under way: cancel it after Stop's
// grace period.
func New(ctx context.Context, o Options, s Sender, l Ledger) *Dispatcher {
	if o.MaxClaimedBytes == 0 {
		o.MaxClaimedBytes = math.MaxInt / 4 // half and double of it are reckoned with
	}
	d := &Dispatcher{options: o, sender: s, ledger: l, lanes: map[uuid.UUID]*lane{}, ctx: ctx}
	d.work.L = &d.mu
	return d
}

// Set adds a subscription's lane or gives it new settings. Settings older than the lane's are passed over.
// When they forbid sending, claimed deliveries go back to the queue.
func (d *Dispatcher) Set(s *delivery.Settings) {
	d.release(d.set(s))
}

func (d *Dispatcher) set(s *delivery.Settings) (back []*delivery.Delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[s.SubscriptionID]
	if l == nil {
		d.lanes[s.SubscriptionID] = newLane(s)
		return nil
	}
	if s.Revision < l.settings.Revision {
		return nil
	}
	l.set(s)
	if !s.Usable() {
		return d.drain(l)
	}
	d.list(l)
	d.options.Hungry() // rows may have waited for these settings
	return nil
}

// Expect says that a subscription has been changed: nothing starts in its lane until Set has brought the settings
// of that revision. It reports whether the lane has them already; a lane that does not exist yet gets them anyway.
func (d *Dispatcher) Expect(id uuid.UUID, revision int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[id]
	if l == nil {
		return true
	}
	l.expected = max(l.expected, revision)
	return !l.stale()
}

// Remove ends a subscription's lane. What waited in it is released, so that a delivery which no lane holds
// is one whose attempt is under way.
func (d *Dispatcher) Remove(id uuid.UUID) {
	d.release(d.remove(id))
}

func (d *Dispatcher) remove(id uuid.UUID) (back []*delivery.Delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[id]
	if l == nil {
		return nil
	}
	s := *l.settings
	s.Active = false
	l.set(&s)
	delete(d.lanes, id)
	return append(d.drain(l), l.fresh.drain()...)
}

// Offer hands over a first attempt and reports whether the lane takes it. If not, it belongs in the queue.
func (d *Dispatcher) Offer(v *delivery.Delivery) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[v.SubscriptionID]
	if l == nil || l.viaQueue || d.stopping || !l.settings.Usable() || l.falters() && l.inFlight+l.fresh.len() > 0 {
		return false
	}
	l.fresh.push(v)
	d.list(l)
	return true
}

// Claimed hands over a delivery claimed from the queue and reports whether its lane takes it.
func (d *Dispatcher) Claimed(v *delivery.Delivery) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[v.SubscriptionID]
	if l == nil || d.stopping || !l.settings.Usable() {
		return false
	}
	if l.open && l.appetite(time.Now()) == 0 {
		return false // it opened since the claim: what waited here would keep the lane from asking for a probe
	}
	l.claimed.push(v)
	d.hold(l, v, 1)
	d.list(l)
	return true
}

// Withdraw gives up a delivery that was offered and not yet finished: it is about to become a queue row.
// It reports whether its attempt is under way; otherwise there will be none from memory, and the lane's
// newer deliveries take the way through the queue as well. The caller marks the delivery as queued.
func (d *Dispatcher) Withdraw(v *delivery.Delivery) (underWay bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[v.SubscriptionID]; l != nil && l.fresh.remove(v) {
		l.viaQueue = true
		return false
	}
	return true
}

// Appetite is how many deliveries the subscription's lane would take from the queue now, and whether the
// lane is known.
func (d *Dispatcher) Appetite(id uuid.UUID, now time.Time) (n int, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[id]
	if l == nil || d.stopping {
		return 0, l != nil
	}
	return d.appetite(l, now), true
}

// Ate tells how a claim for a lane went: more means that there may be more due rows.
func (d *Dispatcher) Ate(id uuid.UUID, more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[id]; l != nil {
		l.hungry = more
	}
}

// Drained ends the way through the queue for all lanes but those with due rows in the queue.
func (d *Dispatcher) Drained(due func(uuid.UUID) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, l := range d.lanes {
		if l.viaQueue && !l.open && l.claimed.len() == 0 && !due(id) {
			l.viaQueue = false
		}
	}
}

// Settings returns a lane's settings, nil when there is none.
func (d *Dispatcher) Settings(id uuid.UUID) *delivery.Settings {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[id]; l != nil {
		return l.settings
	}
	return nil
}

// Known lists the subscriptions that have a lane.
func (d *Dispatcher) Known() []uuid.UUID {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]uuid.UUID, 0, len(d.lanes))
	for id := range d.lanes {
		ids = append(ids, id)
	}
	return ids
}

// list puts a lane that can start something into the list and sees to it that a sender comes.
func (d *Dispatcher) list(l *lane) {
	if d.enlist(l) {
		d.summon()
	}
}

// enlist puts a lane that can start something into the list, for a sender that is about to look there.
func (d *Dispatcher) enlist(l *lane) bool {
	if l.listed || d.stopping || !l.runnable(time.Now()) {
		return false
	}
	l.listed = true
	d.ready = append(d.ready, l)
	return true
}

func (d *Dispatcher) summon() {
	if d.idle > 0 {
		d.work.Signal()
		return
	}
	if d.senders < d.options.MaxSenders {
		d.senders++
		d.waiters.Add(1)
		go d.send()
	}
}

// keptSenders is how many senders wait for work. The others end when there is none: a burst leaves nothing behind.
const keptSenders = 16

// send is one sender: it takes turns over the ready lanes until there is nothing to do for it.
func (d *Dispatcher) send() {
	defer d.waiters.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		l, v, late := d.take(time.Now())
		d.releaseUnlocked(late)
		if v == nil {
			if len(late) > 0 {
				continue // without the lock something may have come
			}
			if d.stopping || d.idle >= keptSenders {
				d.senders--
				return
			}
			d.idle++
			d.work.Wait()
			d.idle--
			continue
		}
		d.attempt(l, v)
	}
}

// attempt makes one attempt without the lock and accounts for it.
func (d *Dispatcher) attempt(l *lane, v *delivery.Delivery) {
	settings := l.settings
	d.inFlight++
	d.mu.Unlock()
	fault.Point(fault.DispatchBeforeAttempt)
	outcome := d.sender.Send(d.ctx, v, settings)
	fault.Point(fault.DispatchAfterAttempt)
	d.ledger.Finished(v, settings, outcome)
	fault.Point(fault.DispatchFinished)
	d.mu.Lock()
	d.inFlight--
	d.letGo(l, v)
	var back []*delivery.Delivery
	now := time.Now()
	if l.finished(&outcome, now) {
		back = d.drain(l)
		time.AfterFunc(l.cooldown, d.options.Hungry) // for the probe
	} else if l.rests(now) {
		time.AfterFunc(falteringRest, d.options.Hungry)
	}
	if l.falters() {
		l.viaQueue = true
		back = append(back, l.fresh.drain()...) // memory is for those that are soon done
	}
	d.enlist(l) // this sender goes on; waking another one for each delivery would cost more than its turn
	d.hungry(l)
	d.releaseUnlocked(back)
}

// take picks the next delivery: the lane at the head of the list gives one and goes to its end. It also takes
// out what waited so long that its lease could end under the attempt, before that costs the lane a turn or a
// token of its rate.
func (d *Dispatcher) take(now time.Time) (_ *lane, _ *delivery.Delivery, late []*delivery.Delivery) {
	for d.next < len(d.ready) {
		l := d.head()
		for _, v := range l.dropLate(now) {
			d.letGo(l, v)
			late = append(late, v)
		}
		if !l.runnable(now) || d.throttled(l, now) {
			continue
		}
		v := l.pop()
		l.inFlight++
		l.probing = l.open
		if l.runnable(now) {
			l.listed = true
			d.ready = append(d.ready, l)
		}
		if d.next < len(d.ready) {
			d.summon()
		}
		return l, v, late
	}
	return nil, nil, late
}

// head takes the first lane off the list.
func (d *Dispatcher) head() *lane {
	l := d.ready[d.next]
	d.ready[d.next] = nil
	if d.next++; d.next >= 64 && d.next*2 >= len(d.ready) {
		n := copy(d.ready, d.ready[d.next:])
		clear(d.ready[n:])
		d.ready, d.next = d.ready[:n], 0
	}
	l.listed = false
	return l
}

// throttled asks the lane's rate limit, and has the lane come back when the limit allows.
func (d *Dispatcher) throttled(l *lane, now time.Time) bool {
	if l.limiter == nil {
		return false
	}
	if l.timer != nil {
		return true
	}
	r := l.limiter.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return false
	}
	r.CancelAt(now)
	l.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		l.timer = nil
		d.list(l)
	})
	return true
}

// Stop takes no more deliveries, lets the attempts under way end and waits for them. Claimed deliveries
// that wait in lanes are released; those from memory are given up by Withdraw. Stop is idempotent.
func (d *Dispatcher) Stop() {
	d.mu.Lock()
	d.stopping = true
	var back []*delivery.Delivery
	for _, l := range d.lanes {
		if l.timer != nil {
			l.timer.Stop()
		}
		back = append(back, d.drain(l)...)
	}
	d.ready, d.next = nil, 0
	d.work.Broadcast()
	d.mu.Unlock()
	d.release(back)
	d.waiters.Wait()
}
