package judge

import (
	"slices"
	"time"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/truth"
)

// subtransactions is how much larger than its transaction's the id of a subtransaction may be. Rows bear the latter, by
// which a recovery finds them.
const subtransactions = 1000

// gapAt is the gap that a transaction lies in, which ends at the position; nil when there is none.
func (j *judgement) gapAt(lsn history.LSN) *history.Gap {
	for i := range j.h.Gaps {
		if g := &j.h.Gaps[i]; lsn > begins(g) && lsn <= g.Until {
			return g
		}
	}
	return nil
}

func begins(g *history.Gap) history.LSN {
	if g.Since > 0 {
		return min(g.Since, g.From)
	}
	return g.From
}

// silent reports that what was altered kept rows from a stream that flowed, among them maybe changes of subscriptions.
func silent(g *history.Gap) bool { return g != nil && begins(g) < g.From }

// looked reports that a recovery looked at the rows of a transaction from before its gap, because it was not known to
// be recorded. Those without an outcome are matched, though the stream may have had nothing to deliver.
func (j *judgement) looked(tx *history.Tx) bool {
	for i := range j.h.Gaps {
		if g := &j.h.Gaps[i]; g.Recovered && tx.LSN <= begins(g) && tx.XID+subtransactions >= g.Floor {
			return true
		}
	}
	return false
}

// readGaps finds which deliveries lie in a gap. A recovery goes by the rule that stood when the event was made, because
// the order of commits is lost with the WAL. Where somebody changed the subscription between then and the commit, it may
// decide either way.
func (j *judgement) readGaps() {
	if len(j.h.Gaps) == 0 {
		return
	}
	for _, g := range j.h.Gaps {
		if g.Recovered {
			j.verdict.Gaps[g.Code]++
		}
	}
	for _, p := range j.pairs {
		p.gap = j.gapAt(p.LSN)
	}
	for i := range j.h.Txs {
		tx := &j.h.Txs[i]
		gap := j.gapAt(tx.LSN)
		if gap == nil && !j.looked(tx) {
			continue
		}
		for n := range tx.Items {
			if e := tx.Items[n].Event; e != nil && !e.Emitted {
				j.decideEitherWay(Expected{LSN: tx.LSN, Index: n, Event: e}, tx.CommittedAt, gap)
			}
		}
	}
}

// decideEitherWay allows what each of the rules would have that a recovery may go by, and the stream where it lacked changes
// of rules. What the stream had is owed.
func (j *judgement) decideEitherWay(e Expected, committed time.Time, gap *history.Gap) {
	matches := func(row *history.Subscription) bool { return row != nil && truth.Matches(row, e.Event) }
	since := e.Event.CreatedAt
	if silent(gap) && gap.Begin.Before(since) {
		since = gap.Begin
	}
	for id, s := range j.subscriptions {
		if p := j.byRow[rowKey{id, e.Event.ID}]; p != nil {
			rules := s.contenders(e.Event.CreatedAt, committed)
			p.undecided = gap != nil && slices.ContainsFunc(rules, func(row *history.Subscription) bool { return !matches(row) })
		} else if slices.ContainsFunc(s.contenders(since, committed), matches) {
			j.allow(e, id)
		}
	}
}

// contenders are the rows of the subscription (nil where there was none) that it may depend on to which order changes and
// an event were brought: none when nobody changed it while the event's transaction ran.
func (s *subscription) contenders(created, committed time.Time) []*history.Subscription {
	var rows []*history.Subscription
	var before *history.Subscription
	for _, v := range s.versions {
		switch {
		case v.from.Before(created):
			before = v.row
		case !v.changed.After(committed):
			rows = append(rows, v.row)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return append(rows, before)
}

// givenUp reports that nobody promises the delivery any more: no stream had it, and nobody looked for its row, or it has
// none.
func (p *pair) givenUp() bool {
	return p.gap != nil && (!p.gap.Recovered || p.Event.Emitted && p.LSN > p.gap.From)
}

// forgotten reports that the subscription was deleted before the recovery, which then has nothing to make a delivery of.
func (p *pair) forgotten() bool {
	last := p.to.versions[len(p.to.versions)-1]
	return p.gap != nil && last.row == nil && last.lsn <= p.gap.Until
}

// excused reports that a delivery of a gap need not be anywhere.
func (p *pair) excused() bool { return p.givenUp() || p.undecided || p.forgotten() }

// unrecorded reports that the fault took the slot away, and what was sent then may not have been recorded: no stream
// told of it again.
func (p *pair) unrecorded(f *fault) bool {
	return p.gap != nil && p.LSN > p.gap.From && f.during(p.gap.Begin, p.gap.End)
}
