package dispatch

import (
	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// sequence is deliveries of a lane that go out one after the other: those with the same key, or all of a strict
// subscription. Its rule:
//
//	Nothing starts while an earlier one is unfinished, wherever that is: under way, waiting here, or in the queue.
//
// What the queue holds is known by the last delivery that has, or is about to have, a row there: until that one
// is done, everything newer goes to the queue as well, behind it. The queue gives out a sequence's rows in order.
type sequence struct {
	name     string
	fresh    fifo // first attempts, from memory
	claimed  fifo // from the queue; always older than fresh ones
	underWay int  // more than one in a batch
	queued   delivery.Position
	listed   bool // stands in the lane's list of sequences that may have something to start
}

// waits counts what may start now.
func (s *sequence) waits(backlog bool) int {
	switch {
	case s.underWay > 0:
		return 0
	case s.claimed.len() > 0:
		return s.claimed.len()
	case backlog || s.behindQueue():
		return 0
	}
	return s.fresh.len()
}

// behindQueue reports that a row of the queue comes before what is in memory.
func (s *sequence) behindQueue() bool { return s.queued != delivery.Position{} }

// next takes the first of what waits counts.
func (s *sequence) next() *delivery.Delivery {
	if v := s.claimed.pop(); v != nil {
		return v
	}
	return s.fresh.pop()
}

// peek returns what next would take.
func (s *sequence) peek() *delivery.Delivery {
	if v := s.claimed.peek(); v != nil {
		return v
	}
	return s.fresh.peek()
}

// toQueue notes that v has, or will have, a row in the queue.
func (s *sequence) toQueue(v *delivery.Delivery) {
	if v.Event.Position.After(s.queued) {
		s.queued = v.Event.Position
	}
}

// done notes that nothing more will come of v.
func (s *sequence) done(v *delivery.Delivery) {
	if v.Event.Position == s.queued {
		s.queued = delivery.Position{}
	}
}

// idle reports that there is nothing to remember.
func (s *sequence) idle() bool {
	return s.underWay == 0 && s.fresh.len() == 0 && s.claimed.len() == 0 && !s.behindQueue()
}

// maxQueued bounds the sequences that a lane remembers because of rows in the queue, as with a receiver that is
// dead while events of ever new keys come. Beyond it the lane as a whole has a backlog.
const maxQueued = 4096

// sequence finds or makes a sequence.
func (l *lane) sequence(name string) *sequence {
	s := l.sequences[name]
	if s == nil {
		if l.sequences == nil {
			l.sequences = map[string]*sequence{}
		}
		s = &sequence{name: name}
		l.sequences[name] = s
	}
	return s
}

// touch lists a sequence that has something to start, and forgets one that is idle.
func (l *lane) touch(s *sequence) {
	switch {
	case s.idle():
		delete(l.sequences, s.name)
	case !s.listed && s.waits(l.backlog) > 0:
		s.listed = true
		l.going.push(s)
	}
}

// toQueue notes that a delivery has, or will have, a row in the queue: newer ones of its sequence must follow it.
func (l *lane) toQueue(v *delivery.Delivery) {
	if v.Sequence == "" || fault.Bug(fault.FreshOvertakes) {
		return
	}
	if !l.backlog {
		s := l.sequence(v.Sequence)
		s.toQueue(v)
		if len(l.sequences) <= maxQueued {
			return
		}
		l.fallBehind()
	}
	if v.Event.Position.After(l.backlogTo) {
		l.backlogTo = v.Event.Position
	}
}

// fallBehind gives up remembering what each sequence has in the queue: all of the lane's sequences go through the
// queue until it holds nothing of theirs.
func (l *lane) fallBehind() {
	l.backlog = true
	l.behind[l] = struct{}{}
	for _, s := range l.sequences {
		if s.queued.After(l.backlogTo) {
			l.backlogTo = s.queued
		}
		s.queued = delivery.Position{}
		l.touch(s)
	}
}

// catchUp ends a backlog. The queue must hold no row of the lane, and everything through recorded must be recorded.
func (l *lane) catchUp(recorded delivery.Position) {
	if !l.backlog || l.backlogTo.After(recorded) {
		return
	}
	l.backlog, l.backlogTo = false, delivery.Position{}
	l.catchesUp()
	for _, s := range l.sequences {
		l.touch(s)
	}
}

// accepts reports whether a first attempt of v may wait in memory for its turn.
func (l *lane) accepts(v *delivery.Delivery) bool {
	if v.Sequence == "" {
		return true
	}
	s := l.sequences[v.Sequence]
	return !l.backlog && (s == nil || !s.behindQueue())
}

// ended accounts for a delivery of a sequence whose attempt has ended: over, or to be tried again. Then what was
// claimed behind it goes back to the queue.
func (l *lane) ended(v *delivery.Delivery, over bool) (back []*delivery.Delivery) {
	s := l.sequences[v.Sequence]
	if v.Sequence == "" || s == nil {
		return nil
	}
	s.underWay--
	if over {
		s.done(v)
	} else {
		l.toQueue(v)
		back = s.claimed.drain()
		for _, b := range back {
			l.unclaim(b)
		}
	}
	l.touch(s)
	return back
}
