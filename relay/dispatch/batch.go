package dispatch

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
)

// maxBatchBytes bounds the events of one request: the delivery that reaches it is the last.
const maxBatchBytes = 4 << 20

// full reports that a request need not wait any longer for more deliveries: it has all it may carry, or has waited
// for batch_wait, or is one that failed and is tried again as it was. Otherwise it says since when the wait lasts.
func (l *lane) full(now time.Time) bool {
	wait := l.settings.BatchWait
	if !l.settings.Batches() || wait <= 0 {
		return true
	}
	if l.waiting.IsZero() {
		l.waiting = now
	}
	return !now.Before(l.waiting.Add(wait)) || l.startable(l.unit()) || l.retries()
}

// retries reports that something waits which failed before and goes again as it was.
func (l *lane) retries() bool { return l.nFailed > 0 }

// company names those that a delivery shares a request with: what failed together goes together again, and what
// failed by itself goes by itself, because those that fail together are given up together, which for others would be
// too soon. The zero id stands for all that have not failed yet.
func company(v *delivery.Delivery) uuid.UUID {
	if v.Batch == uuid.Nil && v.Round > 0 {
		return v.ID
	}
	return v.Batch
}

// pop takes what the next request carries: at least one delivery if the lane is runnable. They are in commit order, so
// that the same ones make the same request whenever they go.
func (l *lane) pop() []*delivery.Delivery {
	var batch []*delivery.Delivery
	size, n := 0, l.unit()
	take := func(v *delivery.Delivery) bool {
		batch = append(batch, v)
		size += v.Event.Size()
		if v.Lease.IsZero() {
			l.nFresh--
		} else {
			l.unclaim(v)
		}
		return len(batch) < n && size < maxBatchBytes
	}
	more := l.popFirst(take)
	switch first := batch[0]; {
	case first.Batch != uuid.Nil && n > 1:
		l.popFailed(first.Batch, take)
	case company(first) == uuid.Nil && more:
		l.popMore(take)
	}
	slices.SortStableFunc(batch, func(a, b *delivery.Delivery) int { return a.Event.Position.Compare(b.Event.Position) })
	l.waiting = time.Time{}
	l.carried += len(batch)
	return batch
}

// The places where deliveries wait, which take turns.
const (
	fromQueue = iota
	fromMemory
	fromSequence
	places
)

// popFirst takes the first delivery of a request: from memory, from the queue and from a sequence in turn. Through
// an open circuit only a claimed one goes, as the probe. It reports whether there is room for more.
func (l *lane) popFirst(take func(*delivery.Delivery) bool) (more bool) {
	for range places {
		l.turn = (l.turn + 1) % places
		switch {
		case l.turn == fromQueue && l.claimed.len() > 0:
			return take(l.claimed.pop())
		case l.turn == fromMemory && l.fresh.len() > 0 && !l.open:
			return take(l.fresh.pop())
		case l.turn == fromSequence:
			if s := l.popSequence(); s != nil {
				return l.takeFrom(s, take)
			}
		}
	}
	return false
}

// popSequence takes the next sequence with something to start off the list.
func (l *lane) popSequence() *sequence {
	for l.going.len() > 0 {
		s := l.going.pop()
		s.listed = false
		if s.waits(l.backlog) > 0 && (!l.open || s.claimed.len() > 0) {
			return s
		}
	}
	return nil
}

// takeFrom takes as many deliveries of a sequence as fit, all of the same company; what failed together fits. It
// reports whether there is room for more.
func (l *lane) takeFrom(s *sequence, take func(*delivery.Delivery) bool) (more bool) {
	taken := 0
	more = true
	for with := company(s.peek()); more || with != uuid.Nil && l.settings.Batches(); taken++ {
		v := s.peek()
		if v == nil || company(v) != with || v.Lease.IsZero() && (s.behindQueue() || l.backlog) {
			break
		}
		more = take(s.next())
	}
	s.underWay += taken
	return more
}

// popFailed takes the rest of a batch that failed, wherever it stands. It goes as it was, whatever size the settings
// say now.
func (l *lane) popFailed(batch uuid.UUID, take func(*delivery.Delivery) bool) {
	for _, v := range l.claimed.extract(func(v *delivery.Delivery) bool { return v.Batch == batch }) {
		take(v)
	}
	for _, s := range l.going.waiting() {
		if v := s.claimed.peek(); s.underWay == 0 && v != nil && v.Batch == batch {
			l.takeFrom(s, take)
		}
	}
}

// popMore fills a request up, with what did not fail together with others.
func (l *lane) popMore(take func(*delivery.Delivery) bool) {
	for v := l.claimed.peek(); v != nil && company(v) == uuid.Nil; v = l.claimed.peek() {
		if !take(l.claimed.pop()) {
			return
		}
	}
	for !l.open && l.fresh.len() > 0 {
		if !take(l.fresh.pop()) {
			return
		}
	}
	for s := l.popSequence(); s != nil; s = l.popSequence() {
		if company(s.peek()) != uuid.Nil {
			l.touch(s)
			return
		}
		if !l.takeFrom(s, take) {
			return
		}
	}
}
