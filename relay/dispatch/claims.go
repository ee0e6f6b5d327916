package dispatch

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
)

const (
	// claimedPerSender bounds the deliveries that all lanes together hold from the queue.
	claimedPerSender = 4
	// laneShare is the part of the claimed bytes from which on a lane is given no more: a receiver that hangs
	// over large bodies must leave room for the others.
	laneShare = 4
	// leaseNearlyOver is too short to record that a delivery was given back.
	leaseNearlyOver = 2 * time.Second
	// halfWait is how long a lane that has used up what it had waits for half of the room to be free, where lanes were
	// left out: receivers that hang may hold the rest of it.
	halfWait = 50 * time.Millisecond
)

// Room is how many deliveries may be claimed now, over all lanes, and how many bytes of events. Neither is
// negative. A claimer that finds too little of it calls Short.
func (d *Dispatcher) Room() (n, bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.room(), max(0, d.options.MaxClaimedBytes-d.bytes)
}

func (d *Dispatcher) room() int { return max(0, d.options.MaxSenders*claimedPerSender-d.claimed) }

// LaneBytes is how many bytes of events one claim may take for one lane.
func (d *Dispatcher) LaneBytes() int { return max(1, d.options.MaxClaimedBytes/laneShare) }

// Short notes that lanes were left out for want of room: Hungry is called when half of it is free, which may be at
// once, or else soon after a lane has used up what it had.
func (d *Dispatcher) Short() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.short = true
	d.roomy()
}

// Claimed hands over what one claim took from the queue, in commit order, and returns what its lanes don't take. Of
// a sequence nothing is taken behind what was not.
func (d *Dispatcher) Claimed(all []*delivery.Delivery) (back []*delivery.Delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	broken := map[place]bool{}
	for _, v := range all {
		at := place{v.SubscriptionID, v.Sequence}
		l := d.lanes[v.SubscriptionID]
		if l == nil || d.stopping || !l.settings.Usable() || l.closedTo(time.Now()) || broken[at] {
			broken[at] = v.Sequence != ""
			back = append(back, v)
			continue
		}
		l.claim(v)
		d.hold(l, v, 1)
	}
	for _, v := range all {
		if l := d.lanes[v.SubscriptionID]; l != nil {
			d.list(l)
		}
	}
	return back
}

// place is where a delivery waits for its turn.
type place struct {
	subscription uuid.UUID
	sequence     string
}

// reservation is what a lane is about to claim.
type reservation struct {
	lane *lane
	n    int
}

// Reserve counts deliveries that a lane is about to claim as held, so that the lanes that are asked after it see less
// room. Unreserve ends that, before Claimed.
func (d *Dispatcher) Reserve(id uuid.UUID, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[id]; l != nil {
		d.reserved = append(d.reserved, reservation{l, n})
		d.count(l, n)
	}
}

// Unreserve ends all reservations.
func (d *Dispatcher) Unreserve() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.reserved {
		d.count(r.lane, -r.n)
	}
	d.reserved = d.reserved[:0]
}

// roomy calls Hungry if lanes were left out and there is room again.
func (d *Dispatcher) roomy() {
	if d.short && 2*d.claimed <= d.options.MaxSenders*claimedPerSender && 2*d.bytes <= d.options.MaxClaimedBytes {
		d.short = false
		d.options.Hungry()
	}
}

// usedUp calls Hungry a little later, if lanes were left out and there is some room, after an attempt of a lane that
// has nothing more from the queue.
func (d *Dispatcher) usedUp(l *lane) {
	if !d.short || l.nClaimed > 0 || d.stopping || d.retry != nil || d.room() == 0 {
		return
	}
	d.retry = time.AfterFunc(halfWait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.retry = nil
		if d.short && !d.stopping && d.room() > 0 {
			d.short = false
			d.options.Hungry()
		}
	})
}

// appetite is how much more the lane would take from the queue, as long as it has not taken its share.
func (d *Dispatcher) appetite(l *lane, now time.Time) int {
	if l.bytes >= d.LaneBytes() {
		return 0
	}
	return l.appetite(now)
}

// hungry reports a lane that could take more and knows of more. Where there is no room for more, it waits for
// that like all others.
func (d *Dispatcher) hungry(l *lane) {
	if l.hungry && !d.short && l.nClaimed <= l.ahead()/4 && d.share(l, d.appetite(l, time.Now())) > 0 {
		l.hungry = false
		d.options.Hungry()
	}
}

// hold accounts for a claimed delivery, or with n = -1 for its end.
func (d *Dispatcher) hold(l *lane, v *delivery.Delivery, n int) {
	size := n * v.Event.Size()
	d.bytes += size
	l.bytes += size
	d.count(l, n)
}

// count accounts for claimed deliveries by their number.
func (d *Dispatcher) count(l *lane, n int) {
	d.claimed += n
	l.holds += n
	l.tenant.holds += n
}

// letGo accounts for a delivery that the lane no longer holds. Those from memory have no lease and don't count.
func (d *Dispatcher) letGo(l *lane, v *delivery.Delivery) {
	if !v.Lease.IsZero() {
		d.hold(l, v, -1)
		d.roomy()
	}
}

// drain takes all claimed deliveries out of a lane.
func (d *Dispatcher) drain(l *lane) []*delivery.Delivery {
	all := l.drainClaimed()
	for _, v := range all {
		d.letGo(l, v)
	}
	return all
}

// release gives deliveries back, without the lock. One whose lease is over, or will be before that could be
// recorded, is left alone: the queue hands it out again by itself, and what is recorded later would end the
// lease of whoever got it.
func (d *Dispatcher) release(all []*delivery.Delivery) {
	soon := time.Now().Add(leaseNearlyOver)
	all = slices.DeleteFunc(all, func(v *delivery.Delivery) bool { return !v.Lease.IsZero() && soon.After(v.Lease) })
	if len(all) > 0 {
		d.ledger.Released(all)
	}
}

// releaseUnlocked gives deliveries back and lets go of the lock meanwhile.
func (d *Dispatcher) releaseUnlocked(all []*delivery.Delivery) {
	if len(all) == 0 {
		return
	}
	d.mu.Unlock()
	defer d.mu.Lock()
	d.release(all)
}
