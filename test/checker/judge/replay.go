package judge

import (
	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/truth"
)

// addReplayed notes which deliveries operators sent again. A replay goes by the rule as it is then: what was not for the
// subscription when it was committed may be sent as well, and is not owed.
func (j *judgement) addReplayed() {
	events := map[uuid.UUID]Expected{} // without subscription
	for i := range j.h.Faults {
		f := &j.h.Faults[i]
		if len(f.Events) > 0 && len(events) == 0 {
			events = j.events()
		}
		for _, id := range f.Events {
			if p := j.byRow[rowKey{f.Subscription, id}]; p != nil {
				p.replayed = true
			} else if e, known := events[id]; known && j.replayable(f, e.Event) {
				j.allow(e, f.Subscription).replayed = true
			}
		}
	}
}

// events are all that were committed, by id.
func (j *judgement) events() map[uuid.UUID]Expected {
	all := map[uuid.UUID]Expected{}
	for i := range j.h.Txs {
		for n, item := range j.h.Txs[i].Items {
			if item.Event != nil {
				all[item.Event.ID] = Expected{LSN: j.h.Txs[i].LSN, Index: n, Event: item.Event}
			}
		}
	}
	return all
}

// replayable reports that the event was for the subscription at some moment of the replay. One that is inactive is
// replayed to as well: what it gets waits.
func (j *judgement) replayable(f *history.Fault, e *history.Event) bool {
	s := j.subscriptions[f.Subscription]
	if s == nil {
		return false
	}
	for _, v := range s.versions {
		if v.row == nil || v.from.After(f.End) || !v.until.IsZero() && v.until.Before(f.Begin) {
			continue
		}
		row := *v.row
		row.Active = true
		if truth.Matches(&row, e) {
			return true
		}
	}
	return false
}

// allow makes a delivery that may be made and need not.
func (j *judgement) allow(e Expected, to uuid.UUID) *pair {
	e.Subscription = to
	p := &pair{Expected: e, tx: j.txs[e.LSN], to: j.subscriptions[to], number: e.Event.Number(), gap: j.gapAt(e.LSN), undecided: true}
	j.byKey[pairKey{to, p.number}], j.byRow[rowKey{to, e.Event.ID}] = p, p
	return p
}
