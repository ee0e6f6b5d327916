package judge

import (
	"github.com/walhook/walhook/test/checker/history"
)

// checkPositions checks at every snapshot that the slot is not ahead of the checkpoint, and that everything
// at or before the checkpoint is durable: delivered, waiting or dead.
func (j *judgement) checkPositions() {
	var open []*pair // at or before the checkpoint, and not delivered for all the snapshots so far tell
	next := 0
	for i := range j.h.Snapshots {
		s := &j.h.Snapshots[i]
		if s.Slot > s.Confirmed {
			j.find(history.Position, s.At, "the slot is at %v, ahead of the checkpoint at %v", s.Slot, s.Confirmed)
		}
		for ; next < len(j.pairs) && j.pairs[next].LSN <= s.Confirmed; next++ {
			if !j.pairs[next].excused() {
				open = append(open, j.pairs[next])
			}
		}
		open = j.checkDurable(s, open)
	}
}

// checkDurable reports what a snapshot should hold and doesn't, and returns what the next one must hold. Whether
// the subscription still exists makes no difference: what waits for a deleted one becomes a dead letter.
func (j *judgement) checkDurable(s *history.Snapshot, open []*pair) []*pair {
	held := make(map[rowKey]bool, len(s.Pending)+len(s.Dead))
	for _, rows := range [][]history.Row{s.Pending, s.Dead} {
		for i := range rows {
			held[keyOf(&rows[i])] = true
		}
	}
	var keep []*pair
	for _, p := range open {
		switch {
		case !p.recorded.IsZero() && !p.recorded.After(s.At):
		case held[rowKey{p.Subscription, p.Event.ID}]:
			keep = append(keep, p)
		default:
			j.find(history.Position, s.At, "checkpoint %v passed %v, which is neither delivered nor waiting nor dead", s.Confirmed, p)
		}
	}
	return keep
}
