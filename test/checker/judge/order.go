package judge

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
)

// clockSlack is how far a time that a receiver or the checker noted may be from that of the deed.
const clockSlack = 50 * time.Millisecond

// sequence is what is promised to arrive in commit order.
type sequence struct {
	subscription uuid.UUID
	key          string // empty: all of the subscription
}

// checkOrder checks that within a sequence nothing arrived before everything earlier was settled or dead, unless behind
// it in the same request. Of each delivery the first request counts, and the first one that was answered with 2xx:
// what failed together must not part and be overtaken. Repetitions need an explanation as duplicates.
func (j *judgement) checkOrder() {
	sequences := map[sequence][]*pair{} // those that were not done when the latest one arrived
	for _, p := range j.pairs {
		s, promised := sequenceOf(p)
		if promised {
			j.verdict.Ordered++
		}
		if !promised || len(p.receipts) == 0 || p.givenUp() {
			continue
		}
		var open []*pair
		violated := false
		for _, earlier := range sequences[s] {
			if p.gap != nil && p.gap == earlier.gap { // these are put in the order of their ids
				open = append(open, earlier)
				continue
			}
			done := j.doneAt(earlier)
			if done.After(p.receipts[0].ArrivedAt) {
				open = append(open, earlier)
			}
			for _, r := range p.tries() {
				together := slices.Index(r.in.pairs, earlier)
				overtakes := done.After(r.ArrivedAt) && together < 0 || together > r.place
				if violated || !overtakes || j.mayOvertake(r, earlier, done) {
					continue
				}
				violated = true
				j.find(history.Order, r.ArrivedAt, "request %d, %v, overtook %v, which began with request %d and was not done",
					r.Seq, p, earlier, earlier.receipts[0].Seq)
			}
		}
		if violated {
			j.verdict.OrderViolations++
		}
		sequences[s] = append(open, p)
	}
}

// tries are the arrivals whose place in the order counts.
func (p *pair) tries() []*arrival {
	if p.settled == nil || p.settled == p.receipts[0] {
		return p.receipts[:1]
	}
	return []*arrival{p.receipts[0], p.settled}
}

func sequenceOf(p *pair) (sequence, bool) {
	switch {
	case p.to.ordering == "strict":
		return sequence{subscription: p.Subscription}, true
	case p.to.ordering == "key" && p.Event.Key != "":
		return sequence{p.Subscription, p.Event.Key}, true
	}
	return sequence{}, false
}

// doneAt is the earliest moment at which the relay may have been done with the delivery.
func (j *judgement) doneAt(p *pair) time.Time {
	if p.settled == nil {
		if p.pending {
			return j.end().Add(clockSlack)
		}
		return p.receipts[len(p.receipts)-1].ArrivedAt
	}
	arrived, answered := p.settled.ArrivedAt, p.settled.AnsweredAt.Add(-clockSlack)
	if tookTooLong(p.to, p.settled) || answered.Before(arrived) {
		return arrived
	}
	return answered
}

// mayOvertake reports that the earlier delivery may have died before the later one was sent and have come back:
// because its death was not recorded when the relay died, an operator asked, or the link had held a request back.
func (j *judgement) mayOvertake(later *arrival, earlier *pair, done time.Time) bool {
	sent := later.ArrivedAt
	died := j.faults.any(earlier.tx.CommittedAt, sent, receiverLink, receivers)
	for _, r := range earlier.receipts {
		died = died || r.ArrivedAt.Before(sent) && r.Attempt > earlier.to.retries
	}
	return died && (j.faults.any(sent.Add(-clockSlack), done, killed, paused) ||
		j.faults.latest(earlier.tx.CommittedAt, done, func(f *fault) bool { return f.asks(earlier.ids...) }) != nil ||
		j.faults.any(done.Add(-onTheWire), done, receiverLink))
}
