package judge

import (
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
)

// rowKey names a delivery as the tables do, its id aside.
type rowKey struct{ subscription, event uuid.UUID }

func keyOf(r *history.Row) rowKey { return rowKey{r.Subscription, r.Event} }

// readSnapshots notes from when on each delivery was recorded as delivered and what the tables held of it in the
// end, and looks for rows that nothing asks for.
func (j *judgement) readSnapshots() {
	for i := range j.h.Snapshots {
		s := &j.h.Snapshots[i]
		for _, p := range j.pairsOf(s.Delivered, "delivered", s.At) {
			if p != nil && p.recorded.IsZero() {
				p.recorded = s.At
			}
		}
		j.findStranded(s)
		pending, dead := j.pairsOf(s.Pending, "waiting", s.At), j.pairsOf(s.Dead, "dead", s.At)
		for k, p := range pending {
			if p != nil && s.Pending[k].Attempts == 0 {
				p.spilled = true
			}
		}
		if i < len(j.h.Snapshots)-1 {
			continue
		}
		for _, p := range pending {
			if p != nil {
				p.pending = true
			}
		}
		for k, p := range dead {
			if p != nil {
				p.dead = &s.Dead[k]
			}
		}
	}
}

// findStranded reports what nothing will ever wake: a row that is held although it is the first of its sequence. Every
// transaction that takes the one before it away wakes it.
func (j *judgement) findStranded(s *history.Snapshot) {
	for _, r := range s.Stranded {
		j.find(history.Stranded, s.At, "delivery %s of event %s to subscription %s is held in the queue, and nothing of its sequence stands before it", r.ID, r.Event, r.Subscription)
	}
}

// pairsOf finds the delivery of each row; nil where none is expected, which is a finding, once.
func (j *judgement) pairsOf(rows []history.Row, state string, at time.Time) []*pair {
	pairs := make([]*pair, len(rows))
	for i := range rows {
		r := &rows[i]
		pairs[i] = j.byRow[keyOf(r)]
		if pairs[i] != nil || j.strange[keyOf(r)] {
			continue
		}
		j.strange[keyOf(r)] = true
		j.verdict.Phantom++
		j.find(history.Phantom, at, "delivery %s of event %s to subscription %s is %s, and recorded for nobody", r.ID, r.Event, r.Subscription, state)
	}
	return pairs
}
