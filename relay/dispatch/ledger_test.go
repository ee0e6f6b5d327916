package dispatch_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/dispatch"
)

// counter is a receiver and ledger that only counts.
type counter struct {
	reason delivery.Reason
	want   int64
	ended  atomic.Int64 // finished or given back
	done   chan struct{}
}

func (c *counter) Send(context.Context, []*delivery.Delivery, *delivery.Settings) delivery.Outcome {
	return delivery.Outcome{Reason: c.reason}
}

func (c *counter) Finished(batch []*delivery.Delivery, _ *delivery.Settings, o delivery.Outcome) bool {
	c.count(len(batch))
	return o.Succeeded()
}

func (c *counter) Released(all []*delivery.Delivery) { c.count(len(all)) }

func (c *counter) count(n int) {
	if c.ended.Add(int64(n)) == c.want {
		close(c.done)
	}
}

// manyKeys offers deliveries of many keys to a lane and waits until each has ended in some way. What waits behind a
// failure is withdrawn, as if it had grown old.
func manyKeys(b *testing.B, deliveries, keys, batch int, reason delivery.Reason) {
	b.Helper()
	b.StopTimer()
	c := &counter{reason: reason, want: int64(deliveries), done: make(chan struct{})}
	d := dispatch.New(context.Background(), dispatch.Options{MaxSenders: 16, Hungry: func() {}}, c, c)
	defer d.Stop()
	s := &delivery.Settings{SubscriptionID: uuid.New(), Active: true, MaxInFlight: 16, BatchSize: batch, Timeout: time.Second, Ordering: delivery.OrderKey}
	d.Set(s)
	all := make([]*delivery.Delivery, deliveries)
	for i := range all {
		key := fmt.Sprint(i % keys)
		all[i] = &delivery.Delivery{ID: uuid.New(), SubscriptionID: s.SubscriptionID, Sequence: "key " + key,
			Event: &delivery.Event{Key: key, Position: delivery.Position{LSN: delivery.LSN(i + 1)}}}
	}
	b.StartTimer()
	var offered []*delivery.Delivery
	for _, v := range all {
		if d.Offer(v) {
			offered = append(offered, v)
		} else {
			c.count(1)
		}
	}
	if reason != delivery.ReasonNone {
		for _, v := range offered {
			if !d.Withdraw(v) {
				c.count(1)
			}
		}
	}
	<-c.done
}
