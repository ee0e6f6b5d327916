package judge

import (
	"slices"
	"time"

	"github.com/walhook/walhook/test/checker/history"
)

// onTheWire is how much later than it was sent a request may arrive, and an answer than it was written, where the way
// between relay and receivers is disturbed.
const onTheWire = time.Second

// timedOut is the class of duplicates that no fault of the history explains, but that the receiver was slow.
const timedOut = "timeout"

// findDuplicates explains every request that arrived after one that was answered with 2xx. It need not have been
// answered yet: that the same thing is sent twice at the same time has no better excuse.
func (j *judgement) findDuplicates() {
	charges := map[*history.Fault]int{}
	byKills := 0
	for _, p := range j.pairs {
		for _, d := range j.duplicatesOf(p) {
			j.verdict.Duplicates++
			if d.class == "" {
				j.verdict.Unexplained++
				j.find(history.Duplicate, d.again.ArrivedAt, "request %d, %v: %s", d.again.Seq, p, d.why)
				continue
			}
			j.verdict.Explained++
			j.verdict.DuplicatesByClass[d.class]++
			if effectOf(d.class) == killed {
				byKills++
			}
			if d.charge != nil {
				charges[d.charge]++
			}
		}
	}
	j.boundDuplicates(charges)
	for _, f := range j.faults.list {
		if f.effect == killed && !f.duringSetUp() {
			j.verdict.Kills++
		}
	}
	if j.verdict.Kills > 0 {
		j.verdict.DuplicatesPerKill = float64(byKills) / float64(j.verdict.Kills)
	}
}

// duplicate is one request too many.
type duplicate struct {
	again  *arrival
	class  string         // of what explains it; empty: nothing does
	why    string         // it is unexplained
	charge *history.Fault // the death of a relay that is the only explanation, once for each delivery
}

func (j *judgement) duplicatesOf(p *pair) []duplicate {
	if len(p.receipts) < 2 && p.recorded.IsZero() {
		return nil
	}
	var all []duplicate
	var done *arrival // the latest that settled
	for _, r := range p.receipts {
		late := !p.recorded.IsZero() && r.ArrivedAt.After(p.recorded)
		if done != nil || late {
			d := j.explain(p, done, r, late)
			if slices.ContainsFunc(all, func(o duplicate) bool { return o.charge == d.charge }) {
				d.charge = nil
			}
			all = append(all, d)
		}
		if settles(r) {
			done = r
		}
	}
	return all
}

func (j *judgement) explain(p *pair, done, again *arrival, late bool) duplicate {
	d := duplicate{again: again}
	if late {
		if f := j.excuseOfRecorded(p, again); f != nil {
			d.class = f.Class
		} else {
			d.why = "was recorded as delivered at " + p.recorded.Format(time.RFC3339Nano)
		}
		return d
	}
	sent := j.sentAfter(done)
	own := tookTooLong(p.to, done)
	f := j.faults.latest(done.ArrivedAt.Add(-onTheWire), again.ArrivedAt, func(f *fault) bool { return explains(f, p, done, sent) })
	switch {
	case f != nil:
		d.class = f.Class
	case own:
		d.class = timedOut
	default:
		d.why = "was answered with 2xx at " + done.AnsweredAt.Format(time.RFC3339Nano) + ", and nothing explains that it was sent again"
	}
	if f == nil || !f.ended() || own {
		return d
	}
	other := j.faults.latest(done.ArrivedAt.Add(-onTheWire), again.ArrivedAt, func(f *fault) bool { return !f.ended() && explains(f, p, done, sent) })
	if other == nil {
		d.charge = j.faults.death(done.ArrivedAt, again, f)
	}
	return d
}

// sentAfter is the earliest moment at which the relay that sent a request may have ended: just before it arrived,
// for a kill is noted some milliseconds late, or long before if the way to the receivers was disturbed.
func (j *judgement) sentAfter(r *arrival) time.Time {
	early := r.ArrivedAt.Add(-onTheWire)
	if j.faults.any(early, r.ArrivedAt, receiverLink) {
		return early
	}
	return r.ArrivedAt.Add(-clockSlack)
}

// explains reports that a fault between a request and its repetition may be the reason for that.
func explains(f *fault, p *pair, done *arrival, sent time.Time) bool {
	switch f.effect {
	case killed, paused:
		return !f.until.Before(sent)
	case asked:
		return f.asks(p.ids...) && !f.End.Before(done.ArrivedAt)
	case receiverLink:
		return f.during(done.ArrivedAt.Add(-onTheWire), done.AnsweredAt.Add(onTheWire))
	case gapped:
		return p.unrecorded(f) && !f.until.Before(sent)
	}
	return false
}

// excuseOfRecorded is why a delivery may come again although its success is durable: an operator wants it, or
// a relay that stood still had begun the request before.
func (j *judgement) excuseOfRecorded(p *pair, again *arrival) *fault {
	return j.faults.latest(p.recorded, again.ArrivedAt, func(f *fault) bool {
		return f.asks(p.ids...) || f.effect == paused && f.during(again.ArrivedAt, again.ArrivedAt)
	})
}

// tookTooLong reports that the relay may have taken a request for failed although it was answered with 2xx: that took
// nearly the whole timeout, which for the relay had begun earlier.
func tookTooLong(s *subscription, done *arrival) bool {
	const nearly = 0.8
	took := done.AnsweredAt.Sub(done.ArrivedAt)
	return s.timeout > 0 && float64(took) > nearly*float64(s.timeout)
}

// death is the end of the relay that had not recorded the first of two requests: the first death after that arrived.
// The ones after that only kept the repetition from being sent. The one before may have been its sender's, where relays
// follow each other in milliseconds; then the next one had not recorded it either.
func (s *faults) death(sent time.Time, again *arrival, latest *fault) *history.Fault {
	if f := s.firstDeath(sent, again.ArrivedAt); f != nil {
		return f.Fault
	}
	return latest.Fault
}

// settlement is when a delivery was answered with 2xx.
type settlement struct {
	at time.Time
	p  *pair
}

// boundDuplicates checks that a relay's death explains no more than what was in flight or not yet recorded.
func (j *judgement) boundDuplicates(charges map[*history.Fault]int) {
	var settled []settlement
	for _, p := range j.pairs {
		for _, r := range p.receipts {
			if settles(r) {
				settled = append(settled, settlement{r.AnsweredAt, p})
			}
		}
	}
	slices.SortFunc(settled, func(a, b settlement) int { return a.at.Compare(b.at) })
	for i := range j.faults.list {
		f := &j.faults.list[i]
		if charges[f.Fault] == 0 {
			continue
		}
		if allowed := f.InFlight + j.unrecorded(f, settled); charges[f.Fault] > allowed {
			j.find(history.Duplicate, f.Begin, "%s %s of relay %d explains %d duplicates, and %d at most were in flight or not recorded", f.Class, f.Point, f.PID, charges[f.Fault], allowed)
		}
	}
}

// unrecorded counts the deliveries that may have been answered and not recorded when a relay died. Before the death
// before that, nothing counts: what had not been recorded then is charged to that one. Neither does what a snapshot
// had as delivered. Answers count until the fault was noted, which is when it was seen what is in flight. More
// cannot be said: between snapshots the history does not tell what was recorded.
func (j *judgement) unrecorded(f *fault, settled []settlement) int {
	since := j.faults.unrecordedSince(f.Begin)
	if before := j.faults.deathBefore(f.Begin); before.After(since) {
		since = before
	}
	first, _ := slices.BinarySearchFunc(settled, since, func(s settlement, t time.Time) int { return s.at.Compare(t) })
	open := map[*pair]bool{}
	for _, s := range settled[first:] {
		if s.at.After(f.until.Add(clockSlack)) {
			break
		}
		if s.p.recorded.IsZero() || s.p.recorded.After(f.Begin) {
			open[s.p] = true
		}
	}
	return len(open)
}
