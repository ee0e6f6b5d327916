package judge

import (
	"fmt"

	"github.com/walhook/walhook/test/checker/history"
)

// findLost looks for the end of every expected delivery.
func (j *judgement) findLost() {
	for _, p := range j.pairs {
		switch {
		case j.redeliveredInVain(p):
			j.lose(p, "was redelivered and still dead, though receivers were well")
		case p.settled != nil:
			j.verdict.Delivered++
			if p.gap != nil && p.gap.Recovered && !p.settled.ArrivedAt.Before(p.gap.Begin) {
				j.verdict.Recovered++
			}
		case len(p.receipts) == 0 && !p.recorded.IsZero():
			j.lose(p, "is recorded as delivered and never arrived")
		case p.givenUp():
			j.verdict.GivenUp++
		case p.to.deleted() && p.dead != nil, p.forgotten():
			j.verdict.Cancelled++
		case j.waits(p):
			j.verdict.Waiting++
		case p.undecided && p.dead == nil && !p.pending:
			j.verdict.Otherwise++
		default:
			j.findDead(p)
		}
	}
}

func (j *judgement) lose(p *pair, why string) {
	j.verdict.Lost++
	j.find(history.Lost, p.tx.CommittedAt, "%v: %s", p, why)
}

// redeliveredInVain reports that a delivery is dead although an operator sent it again when all receivers answered
// with 2xx.
func (j *judgement) redeliveredInVain(p *pair) bool {
	if p.dead == nil || p.to.deleted() || j.h.HealedAt.IsZero() {
		return false
	}
	return j.faults.latest(j.h.HealedAt, j.end(), func(f *fault) bool {
		return f.asks(p.dead.ID) && !f.Begin.Before(j.h.HealedAt)
	}) != nil
}

// waits reports that a delivery has a reason to be neither delivered nor dead. While an episode has not drained,
// which is a finding of its own, what is in the queue or behind the checkpoint is late and not lost.
func (j *judgement) waits(p *pair) bool {
	if j.h.DrainedAt.IsZero() {
		return p.pending || p.LSN > j.lastSnapshot().Confirmed
	}
	return p.pending && p.to.held()
}

// findDead accepts a dead letter that had all its attempts, and a reason why they failed: an answer that was none,
// or receivers that could not be reached. What is not dead either is lost.
func (j *judgement) findDead(p *pair) {
	switch {
	case p.dead == nil:
		j.lose(p, p.absence())
	case p.dead.Attempts <= p.to.retries:
		j.lose(p, fmt.Sprintf("died after %d of %d attempts", p.dead.Attempts, p.to.retries+1))
	case len(p.receipts) == 0 && !j.faults.any(p.tx.CommittedAt, j.end(), receiverLink, receivers):
		j.lose(p, "died without cause: no attempt arrived, and the receivers could be reached")
	default:
		j.verdict.Dead++
	}
}

// absence tells how far a delivery came that is neither delivered nor dead.
func (p *pair) absence() string {
	state := "neither dead nor waiting"
	switch {
	case p.pending && p.to.deleted():
		state = "still waiting for its subscription, which is deleted"
	case p.pending:
		state = "still waiting for its subscription, which is active"
	}
	if len(p.receipts) == 0 {
		return "never arrived, and is " + state
	}
	last := p.receipts[len(p.receipts)-1]
	return fmt.Sprintf("arrived %d times without success, last as request %d (%s, status %d), and is %s", len(p.receipts), last.Seq, last.Behaviour, last.Status, state)
}
