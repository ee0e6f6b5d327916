package dispatch

import (
	"time"

	"github.com/walhook/walhook/relay/delivery"
)

// Who is served next. Tenants take turns, and within a tenant its lanes: neither a subscription with a long backlog
// nor a tenant with many subscriptions makes others wait. What hangs is bounded as well: a lane may hold as many
// senders as are still free, and a tenant three times as many, so that some are free however many receivers hang.
// (Dynamic thresholds, as for shared buffers: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6 (2), 1998.)
// The same goes for what is claimed from the queue.

// tenantShare is how many times the senders that are free a tenant may hold, where there is more than one tenant.
const tenantShare = 3

// tenant is the lanes of one tenant.
type tenant struct {
	name     string
	lanes    int
	inFlight int // requests
	holds    int // claimed deliveries, those under way included
	ready    ring[*lane]
	listed   bool
	parked   ring[*lane] // hold their share of the senders, or the tenant does
	waits    bool        // stands in the list of tenants with parked lanes
}

// join puts a lane under its tenant.
func (d *Dispatcher) join(l *lane, name string) {
	if l.tenant != nil && l.tenant.name == name {
		return
	}
	old := l.tenant
	t := d.tenants[name]
	if t == nil {
		t = &tenant{name: name}
		d.tenants[name] = t
	}
	t.lanes++
	t.inFlight += l.inFlight
	t.holds += l.holds
	l.tenant = t
	d.leave(l, old)
}

// leave takes a lane from a tenant, and the last one takes the tenant along.
func (d *Dispatcher) leave(l *lane, t *tenant) {
	if t == nil {
		return
	}
	t.lanes--
	t.inFlight -= l.inFlight
	t.holds -= l.holds
	if t.lanes == 0 {
		delete(d.tenants, t.name)
	}
}

// list puts a lane that can start something into the list and sees to it that a sender comes.
func (d *Dispatcher) list(l *lane) {
	if d.enlist(l) {
		d.summon()
	}
}

// enlist puts a lane that can start something into the list, for a sender that is about to look there. One whose
// batch is not full comes back when it has waited long enough.
func (d *Dispatcher) enlist(l *lane) bool {
	now := time.Now()
	if l.listed || l.parked || d.stopping {
		return false
	}
	if !l.runnable(now) {
		d.awaitBatch(l, now)
		return false
	}
	d.queueUp(l)
	return true
}

// queueUp puts the lane behind its tenant's others.
func (d *Dispatcher) queueUp(l *lane) {
	l.listed = true
	l.tenant.ready.push(l)
	if !l.tenant.listed {
		l.tenant.listed = true
		d.turns.push(l.tenant)
	}
}

// awaitBatch sets the timer of a lane that waits for a batch to fill. One that has waited long enough waits for
// something else, which lists it.
func (d *Dispatcher) awaitBatch(l *lane, now time.Time) {
	left := l.waiting.Add(l.settings.BatchWait).Sub(now)
	if l.fill != nil || l.waiting.IsZero() || left <= 0 || !l.startable(1) {
		return
	}
	l.fill = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		l.fill = nil
		d.list(l)
	})
}

// head takes the lane whose turn it is off the list, nil if there is none.
func (d *Dispatcher) head() *lane {
	for d.turns.len() > 0 {
		t := d.turns.pop()
		t.listed = false
		if t.ready.len() == 0 {
			continue
		}
		l := t.ready.pop()
		l.listed = false
		if t.ready.len() > 0 {
			t.listed = true
			d.turns.push(t)
		}
		return l
	}
	return nil
}

// crowded reports that a lane, or its tenant, holds its share of the senders.
func (d *Dispatcher) crowded(l *lane) bool {
	return l.inFlight >= max(1, d.options.MaxSenders-d.requests) || d.crowds(l.tenant)
}

// crowds reports that a tenant holds its share of the senders.
func (d *Dispatcher) crowds(t *tenant) bool {
	return len(d.tenants) > 1 && t.inFlight >= max(1, tenantShare*(d.options.MaxSenders-d.requests))
}

// park has a lane wait until senders are free.
func (d *Dispatcher) park(l *lane) {
	l.parked = true
	t := l.tenant
	t.parked.push(l)
	if !t.waits {
		t.waits = true
		d.parked.push(t)
	}
}

// unparkTries is how many tenants with parked lanes are looked at when a sender is free, and how many lanes of each.
const unparkTries = 4

// unpark lists lanes that had to wait until senders are free, after an attempt of a lane has ended: that lane, its
// tenant's others, and others in turn. None is forgotten, because a lane is parked only while its tenant has an attempt
// under way, and when the last one ends nothing keeps its lanes any more.
func (d *Dispatcher) unpark(l *lane) {
	if l.parked && !d.crowded(l) {
		l.parked = false // it leaves the list when its turn comes there
		d.enlist(l)
	}
	d.unparkOf(l.tenant)
	for range min(unparkTries, d.parked.len()) {
		t := d.parked.pop()
		d.unparkOf(t)
		if t.waits = t.parked.len() > 0; t.waits {
			d.parked.push(t)
		}
	}
}

// unparkOf lists parked lanes of a tenant. Those with nothing to start any more don't count.
func (d *Dispatcher) unparkOf(t *tenant) {
	for n, tries := t.parked.len(), unparkTries; n > 0 && tries > 0 && !d.crowds(t); n-- {
		l := t.parked.pop()
		switch {
		case !l.parked:
		case d.crowded(l):
			t.parked.push(l)
			tries--
		default:
			l.parked = false
			if d.enlist(l) {
				tries--
			}
		}
	}
}

// share bounds what a lane is given from the queue by what there is room for.
func (d *Dispatcher) share(l *lane, n int) int {
	room := d.room()
	share := room
	if len(d.lanes) > 1 { // so much that it then holds what is free then
		share = max(0, room-l.holds+1) / 2
	}
	if len(d.tenants) > 1 {
		share = min(share, max(0, tenantShare*room-l.tenant.holds+tenantShare)/(tenantShare+1))
	}
	if share == 0 && n > 0 && (room == 0 || l.holds == 0) {
		d.short = true // it asks again when there is more room; one that has its share does so when it holds less
	}
	return min(n, share)
}

// take picks what is sent next: the lane at the head of the list gives one request and goes to its end. It also
// takes out what waited so long that its lease could end under the attempt, before that costs the lane a turn or a
// token of its rate.
func (d *Dispatcher) take(now time.Time) (_ *lane, batch, late []*delivery.Delivery) {
	for l := d.head(); l != nil; l = d.head() {
		for _, v := range l.dropLate(now) {
			d.letGo(l, v)
			late = append(late, v)
		}
		if !l.runnable(now) {
			d.awaitBatch(l, now)
			continue
		}
		if d.crowded(l) {
			d.park(l)
			continue
		}
		if d.throttled(l, now) {
			continue
		}
		probe := l.open
		batch := l.pop()
		l.probing = probe
		l.inFlight++
		l.tenant.inFlight++
		d.requests++
		d.inFlight += len(batch)
		d.enlistAfter(l, now)
		if d.turns.len() > 0 {
			d.summon()
		}
		return l, batch, late
	}
	return nil, nil, late
}

// enlistAfter puts a lane that has just given something behind the others.
func (d *Dispatcher) enlistAfter(l *lane, now time.Time) {
	if l.runnable(now) {
		d.queueUp(l)
		return
	}
	d.awaitBatch(l, now)
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
