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

// Sender makes one attempt, of one delivery or of a batch. A failure is an outcome, not an error.
type Sender interface {
	Send(ctx context.Context, batch []*delivery.Delivery, s *delivery.Settings) delivery.Outcome
}

// Ledger takes what became of deliveries. It is called without the dispatcher's lock, by many senders.
type Ledger interface {
	// Finished takes the outcome of an attempt and reports whether it was the last one of these deliveries.
	Finished(batch []*delivery.Delivery, s *delivery.Settings, o delivery.Outcome) (over bool)
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
	tenants  map[string]*tenant
	strays   map[uuid.UUID]delivery.Position // of subscriptions without a lane: the last ordered delivery that went to the queue
	behind   map[*lane]struct{}              // lanes with viaQueue or a backlog: the claimer looks at no others, however many there are
	turns    ring[*tenant]                   // tenants with lanes that may have something to start, in turn
	parked   ring[*tenant]                   // tenants with lanes that must wait until senders are free
	requests int                             // under way
	inFlight int                             // deliveries in them
	idle     int                             // senders that wait
	senders  int
	stopping bool
	claimed  int           // deliveries from the queue that are held, those under way included
	reserved []reservation // of claimed: what a claim under way may bring
	bytes    int           // of their events
	short    bool          // lanes had to be left out for want of room
	retry    *time.Timer   // calls Hungry for them, see usedUp
	waiters  sync.WaitGroup
	ctx      context.Context // of the attempts
}

// New returns a dispatcher without lanes. ctx ends attempts that are under way: cancel it after Stop's
// grace period.
func New(ctx context.Context, o Options, s Sender, l Ledger) *Dispatcher {
	if o.MaxClaimedBytes == 0 {
		o.MaxClaimedBytes = math.MaxInt / 4 // half and double of it are reckoned with
	}
	d := &Dispatcher{options: o, sender: s, ledger: l, lanes: map[uuid.UUID]*lane{}, tenants: map[string]*tenant{},
		strays: map[uuid.UUID]delivery.Position{}, behind: map[*lane]struct{}{}, ctx: ctx}
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
		d.open(s)
		return nil
	}
	if s.Revision < l.settings.Revision {
		return nil
	}
	l.set(s)
	d.join(l, s.Tenant)
	if !s.Usable() {
		return d.drain(l)
	}
	d.list(l)
	d.options.Hungry() // rows may have waited for these settings
	return nil
}

// open makes a subscription's lane.
func (d *Dispatcher) open(s *delivery.Settings) {
	l := &lane{behind: d.behind}
	l.set(s)
	d.join(l, s.Tenant)
	if last, strayed := d.strays[s.SubscriptionID]; strayed {
		l.fallBehind()
		l.backlogTo = last
		delete(d.strays, s.SubscriptionID)
	}
	d.lanes[s.SubscriptionID] = l
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
	d.leave(l, l.tenant)
	l.tenant = &tenant{inFlight: l.inFlight, holds: l.holds} // what is under way still ends
	delete(d.lanes, id)
	delete(d.behind, l)
	l.behind = map[*lane]struct{}{}
	return append(d.drain(l), l.drainFresh()...)
}

// Offer hands over a first attempt and reports whether the lane takes it. If not, it belongs in the queue.
func (d *Dispatcher) Offer(v *delivery.Delivery) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[v.SubscriptionID]
	if l == nil {
		if v.Sequence != "" {
			d.strays[v.SubscriptionID] = v.Event.Position
		}
		return false
	}
	if l.viaQueue || d.stopping || !l.settings.Usable() || l.falters() && l.inFlight+l.nFresh > 0 || !l.accepts(v) {
		l.toQueue(v)
		return false
	}
	l.nFresh++
	if v.Sequence == "" {
		l.fresh.push(v)
	} else {
		s := l.sequence(v.Sequence)
		s.fresh.push(v)
		l.touch(s)
	}
	d.list(l)
	return true
}

// Withdraw gives up a delivery that was offered and not yet finished: it is about to become a queue row.
// It reports whether its attempt is under way; otherwise there will be none from memory, and the lane's
// newer deliveries take the way through the queue as well. The caller marks the delivery as queued.
func (d *Dispatcher) Withdraw(v *delivery.Delivery) (underWay bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[v.SubscriptionID]
	if l == nil {
		return true
	}
	defer l.toQueue(v)
	if !l.withdraw(v) {
		return true
	}
	l.nFresh--
	if v.Sequence == "" {
		l.takeTheQueue()
	}
	return false
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
	return d.share(l, d.appetite(l, now)), true
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
	for l := range d.behind {
		if l.viaQueue && !l.open && l.nClaimed == 0 && !due(l.settings.SubscriptionID) {
			l.viaQueue = false
			l.catchesUp()
		}
	}
}

// Behind says that the queue holds deliveries of a subscription that nothing is known of here, as after a takeover:
// those of a sequence all take the way through the queue until CaughtUp. Its lane may come later: the row of a new
// subscription can be seen only after the stream has brought it.
func (d *Dispatcher) Behind(id uuid.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[id]; l != nil {
		l.fallBehind()
	} else if _, strayed := d.strays[id]; !strayed {
		d.strays[id] = delivery.Position{}
	}
}

// CaughtUp ends the backlog of all lanes but those that the queue holds deliveries of. They were looked for after
// everything through recorded was recorded.
func (d *Dispatcher) CaughtUp(recorded delivery.Position, waits func(uuid.UUID) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.behind {
		if l.backlog && !waits(l.settings.SubscriptionID) {
			l.catchUp(recorded)
			d.list(l)
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
		l, batch, late := d.take(time.Now())
		d.releaseUnlocked(late)
		if l == nil {
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
		d.attempt(l, batch)
	}
}

// attempt makes one attempt without the lock and accounts for it.
func (d *Dispatcher) attempt(l *lane, batch []*delivery.Delivery) {
	settings := l.settings
	d.mu.Unlock()
	fault.Point(fault.DispatchBeforeAttempt)
	outcome := d.sender.Send(d.ctx, batch, settings)
	fault.Point(fault.DispatchAfterAttempt)
	over := d.ledger.Finished(batch, settings, outcome)
	fault.Point(fault.DispatchFinished)
	fault.PointIf(len(batch) > 1, fault.DispatchBatchFinished)
	d.mu.Lock()
	d.requests--
	d.inFlight -= len(batch)
	l.tenant.inFlight--
	l.carried -= len(batch)
	back := d.ended(l, batch, over)
	back = append(back, d.judge(l, &outcome, time.Now())...)
	d.enlist(l) // this sender goes on; waking another one for each delivery would cost more than its turn
	d.unpark(l)
	d.hungry(l)
	d.usedUp(l)
	d.releaseUnlocked(back)
}

// ended accounts for the deliveries of a request, and returns those that must not follow them now.
func (d *Dispatcher) ended(l *lane, batch []*delivery.Delivery, over bool) (back []*delivery.Delivery) {
	for _, v := range batch {
		d.letGo(l, v)
		behind := l.ended(v, over)
		for _, b := range behind {
			d.letGo(l, b)
		}
		back = append(back, behind...)
	}
	return back
}

// judge opens or closes the lane's circuit by an outcome, and returns what no longer waits in the lane.
func (d *Dispatcher) judge(l *lane, o *delivery.Outcome, now time.Time) (back []*delivery.Delivery) {
	if l.finished(o, now) {
		back = d.drain(l)
		time.AfterFunc(l.cooldown, d.options.Hungry) // for the probe
	} else if l.rests(now) {
		time.AfterFunc(falteringRest, d.options.Hungry)
	}
	if l.falters() {
		l.takeTheQueue()
		back = append(back, l.drainFresh()...) // memory is for those that are soon done
	}
	return back
}

// Stop takes no more deliveries, lets the attempts under way end and waits for them. Claimed deliveries
// that wait in lanes are released; those from memory are given up by Withdraw. Stop is idempotent.
func (d *Dispatcher) Stop() {
	d.mu.Lock()
	d.stopping = true
	var back []*delivery.Delivery
	for _, l := range d.lanes {
		l.stopTimers()
		back = append(back, d.drain(l)...)
	}
	d.turns, d.parked = ring[*tenant]{}, ring[*tenant]{}
	if d.retry != nil {
		d.retry.Stop()
	}
	d.work.Broadcast()
	d.mu.Unlock()
	d.release(back)
	d.waiters.Wait()
}
