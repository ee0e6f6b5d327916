package relay

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/queue"
)

// plan is what one claim asks for. All lanes together hold a bounded number of deliveries and of bytes from the
// queue, however many lanes there are and however large the events.
type plan struct {
	wants    []queue.Want
	n, bytes int  // what there is room for
	short    bool // a lane was left out for want of room
	blocked  bool // all are left out
}

// plan begins a claim. While nothing can be recorded nothing is claimed either: it would be sent, forgotten and
// sent again.
func (o *ownership) plan() *plan {
	o.lanes.Unreserve() // a claim may have broken off
	if o.relay.recording.exists() {
		return &plan{blocked: true}
	}
	n, bytes := o.lanes.Room()
	return &plan{n: n, bytes: bytes}
}

// want adds a lane with due rows to the plan. One that is left out says when it has an appetite: it must know
// before it is asked, for its attempts may end in between.
func (o *ownership) want(p *plan, id uuid.UUID) {
	o.lanes.Ate(id, true)
	appetite, _ := o.lanes.Appetite(id, time.Now())
	s := o.lanes.Settings(id)
	if appetite == 0 || s == nil || p.blocked {
		return
	}
	if p.n == 0 || p.bytes == 0 {
		p.short = true
		return
	}
	n := min(appetite, p.n)
	p.n -= n
	o.lanes.Reserve(id, n)
	p.wants = append(p.wants, queue.Want{SubscriptionID: id, N: n, Bytes: o.lanes.LaneBytes(), Lease: s.Timeout + s.BatchWait + o.options.LeaseMargin})
}

// take claims and hands over, and returns how many there were.
func (o *ownership) take(ctx context.Context, conn *pgx.Conn, p *plan) (int, error) {
	if len(p.wants) == 0 {
		o.leftOut(p)
		return 0, nil
	}
	fault.Point(fault.QueueBeforeClaim)
	claimed, err := o.queue.Claim(ctx, conn, p.wants, p.bytes)
	o.lanes.Unreserve()
	if err != nil {
		return 0, err
	}
	fault.PointIf(len(claimed) > 0, fault.QueueClaimed)
	n := len(claimed)
	o.ate(p, claimed)
	claimed, behind := o.open(claimed)
	back := append(o.lanes.Claimed(claimed), behind...)
	fault.PointIf(len(claimed) > 0, fault.QueueOffered)
	if len(back) > 0 {
		o.window.Released(back)
	}
	o.leftOut(p) // now that what was claimed counts
	return n, nil
}

// open leaves out what has ended here already, see Window.Open. Of a sequence, what was claimed with it must not go
// now: it stands behind one whose outcome is not recorded yet.
func (o *ownership) open(claimed []*delivery.Delivery) (open, behind []*delivery.Delivery) {
	before := slices.Clone(claimed)
	open = o.window.Open(claimed)
	if len(open) == len(before) {
		return open, nil
	}
	type place struct {
		subscription uuid.UUID
		sequence     string
	}
	broken := map[place]bool{}
	for _, d := range before {
		if d.Sequence != "" && !slices.Contains(open, d) {
			broken[place{d.SubscriptionID, d.Sequence}] = true
		}
	}
	open = slices.DeleteFunc(open, func(d *delivery.Delivery) bool {
		if broken[place{d.SubscriptionID, d.Sequence}] {
			behind = append(behind, d)
			return true
		}
		return false
	})
	return open, behind
}

// leftOut asks to be called when there is room for the lanes that were left out.
func (o *ownership) leftOut(p *plan) {
	if p.short {
		o.lanes.Short()
	}
}

// ate tells each lane whether there may be more for it, and notes where the next claim begins.
func (o *ownership) ate(p *plan, claimed []*delivery.Delivery) {
	type amount struct{ n, bytes int }
	got, all := make(map[uuid.UUID]amount, len(p.wants)), 0
	for _, d := range claimed {
		size := d.Event.Size()
		a := got[d.SubscriptionID]
		got[d.SubscriptionID] = amount{a.n + 1, a.bytes + size}
		all += size
	}
	cut := all >= p.bytes // then rows of any lane may have been left over
	p.short = p.short || cut
	for _, w := range p.wants {
		a := got[w.SubscriptionID]
		o.lanes.Ate(w.SubscriptionID, cut || a.n == w.N || a.bytes >= w.Bytes)
		if a.n > 0 {
			o.served = w.SubscriptionID
		}
	}
}

// inTurn puts the lanes behind the one that was served last first, so that whoever was left out is next, and lets
// tenants take turns: the first lane of each, then the second one of each, and so on.
func (o *ownership) inTurn(lanes []queue.Lane) []queue.Lane {
	lanes = inTurn(lanes, o.served)
	turns := make(map[uuid.UUID]int, len(lanes))
	of := map[string]int{}
	for _, l := range lanes {
		tenant := ""
		if s := o.lanes.Settings(l.SubscriptionID); s != nil {
			tenant = s.Tenant
		}
		turns[l.SubscriptionID] = of[tenant]
		of[tenant]++
	}
	if len(of) > 1 {
		slices.SortStableFunc(lanes, func(a, b queue.Lane) int { return cmp.Compare(turns[a.SubscriptionID], turns[b.SubscriptionID]) })
	}
	return lanes
}

// inTurn rotates lanes, which come in the order of their ids.
func inTurn(lanes []queue.Lane, served uuid.UUID) []queue.Lane {
	at, found := slices.BinarySearchFunc(lanes, served, func(l queue.Lane, id uuid.UUID) int {
		return bytes.Compare(l.SubscriptionID[:], id[:])
	})
	if found {
		at++
	}
	return slices.Concat(lanes[at:], lanes[:at])
}
