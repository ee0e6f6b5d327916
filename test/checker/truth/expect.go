package truth

import (
	"bytes"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
)

// Expected is a delivery that the relay owes.
type Expected struct {
	LSN          history.LSN // where the event's transaction ends
	Index        int         // of the event among the items of its transaction, from 0
	Event        *history.Event
	Subscription uuid.UUID
}

// Expect replays transactions from an empty database: which event is for whom is decided by the subscriptions as they
// are at its place, changes earlier in its own transaction included. The deliveries come in the order of the events,
// those of one event by subscription.
func Expect(txs []history.Tx) []Expected {
	var expected []Expected
	subscriptions := make(map[uuid.UUID]*history.Subscription)
	for _, tx := range txs {
		for i, item := range tx.Items {
			switch {
			case item.Subscription != nil:
				subscriptions[item.Subscription.ID] = item.Subscription
			case item.Deleted != nil:
				delete(subscriptions, *item.Deleted)
			case item.Event != nil:
				for _, id := range receivers(subscriptions, item.Event) {
					expected = append(expected, Expected{LSN: tx.LSN, Index: i, Event: item.Event, Subscription: id})
				}
			}
		}
	}
	return expected
}

func receivers(subscriptions map[uuid.UUID]*history.Subscription, e *history.Event) []uuid.UUID {
	ids := slices.Collect(maps.Keys(subscriptions))
	ids = slices.DeleteFunc(ids, func(id uuid.UUID) bool { return !Matches(subscriptions[id], e) })
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}
