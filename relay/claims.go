package relay

import (
	"bytes"
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
	p.wants = append(p.wants, queue.Want{SubscriptionID: id, N: n, Bytes: o.lanes.LaneBytes(), Lease: s.Timeout + o.options.LeaseMargin})
}

// take claims and hands over, and returns how many there were.
func (o *ownership) take(ctx context.Context, conn *pgx.Conn, p *plan) (int, error) {
	if len(p.wants) == 0 {
		o.leftOut(p)
		return 0, nil
	}
	fault.Point(fault.QueueBeforeClaim)
	claimed, err := o.queue.Claim(ctx, conn, p.wants, p.bytes)
	if err != nil {
		return 0, err
	}
	fault.PointIf(len(claimed) > 0, fault.QueueClaimed)
	n := len(claimed)
	o.ate(p, claimed)
	claimed = o.window.Open(claimed)
	var back []*delivery.Delivery
	for _, d := range claimed {
		if !o.lanes.Claimed(d) {
			back = append(back, d)
		}
	}
	fault.PointIf(len(claimed) > 0, fault.QueueOffered)
	if len(back) > 0 {
		o.window.Released(back)
	}
	o.leftOut(p) // now that what was claimed counts
	return n, nil
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

// inTurn puts the lanes behind the one that was served last first, so that whoever was left out is next. They
// come in the order of their ids.
func inTurn(lanes []queue.Lane, served uuid.UUID) []queue.Lane {
	at, found := slices.BinarySearchFunc(lanes, served, func(l queue.Lane, id uuid.UUID) int {
		return bytes.Compare(l.SubscriptionID[:], id[:])
	})
	if found {
		at++
	}
	return slices.Concat(lanes[at:], lanes[:at])
}
