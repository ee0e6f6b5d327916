package main

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/truth"
	"github.com/walhook/walhook/test/checker/workload"
)

// tally keeps count of what is expected, as the WAL is read. It serves the nemesis only; the verdict is made
// from the whole history.
type tally struct {
	mu            sync.Mutex
	subscriptions map[uuid.UUID]*history.Subscription
	deliveries    int
	recent        []promise
	lsn           history.LSN // of the last transaction that held something of ours
}

// promise is an event that a subscription should get.
type promise struct {
	subscription uuid.UUID
	number       int64
	at           time.Time
}

// recently bounds what counts as in flight: what is older may wait for its next attempt, or for nothing at all.
const recently = 5 * time.Second

func (t *tally) add(tx history.Tx) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.subscriptions == nil {
		t.subscriptions = map[uuid.UUID]*history.Subscription{}
	}
	if len(tx.Items) > 0 {
		t.lsn = tx.LSN
	}
	for i := range tx.Items {
		t.item(&tx.Items[i])
	}
	old := time.Now().Add(-recently)
	t.recent = slices.DeleteFunc(t.recent, func(p promise) bool { return p.at.Before(old) })
}

func (t *tally) item(item *history.Item) {
	switch {
	case item.Subscription != nil:
		t.subscriptions[item.Subscription.ID] = item.Subscription
	case item.Deleted != nil:
		delete(t.subscriptions, *item.Deleted)
		t.recent = slices.DeleteFunc(t.recent, func(p promise) bool { return p.subscription == *item.Deleted })
	default:
		for id, s := range t.subscriptions {
			if truth.Matches(s, item.Event) {
				t.deliveries++
				t.recent = append(t.recent, promise{id, item.Event.Number(), time.Now()})
			}
		}
	}
}

// open counts what was promised recently and has not come.
func (t *tally) open(came func(subscription uuid.UUID, number int64) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, old := 0, time.Now().Add(-recently)
	for _, p := range t.recent {
		if !p.at.Before(old) && !came(p.subscription, p.number) {
			n++
		}
	}
	return n
}

func (t *tally) expected() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.deliveries
}

func (t *tally) last() history.LSN {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lsn
}

// changeable are the active subscriptions but that of the bulk, which nobody touches.
func (t *tally) changeable() []uuid.UUID {
	all := t.ids()
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(all, func(id uuid.UUID) bool {
		s := t.subscriptions[id]
		return s == nil || !s.Active || s.Tenant == workload.TenantOfBulk
	})
}

// ids are the subscriptions that exist.
func (t *tally) ids() []uuid.UUID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Keys(t.subscriptions), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}
