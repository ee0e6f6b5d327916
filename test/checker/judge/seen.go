package judge

import "slices"

// What a promise has to be seen to hold under.
var (
	promised = map[string]func(*pair) bool{
		"ordered": func(p *pair) bool { _, ordered := sequenceOf(p); return ordered },
		"batched": func(p *pair) bool { return p.batched },
	}
	strikes = map[string]func(*fault) bool{
		"kill":     func(f *fault) bool { return f.effect == killed && !f.duringSetUp() },
		"takeover": func(f *fault) bool { return f.Class == "kill-takeover" || f.effect == paused },
		"spill":    func(f *fault) bool { return f.Point == "record.spilled" },
	}
)

// Sights lists what Verdict.Seen counts.
func Sights() []string {
	var all []string
	for promise := range promised {
		for strike := range strikes {
			all = append(all, sight(promise, strike))
		}
	}
	slices.Sort(all)
	return all
}

func sight(promise, strike string) string { return promise + " under a " + strike }

// countSeen counts the deliveries that were under way when something struck: committed before, and answered with
// 2xx for the first time after it. What waited in the queue without an attempt was spilled.
func (j *judgement) countSeen() {
	for _, p := range j.pairs {
		if p.settled == nil {
			continue
		}
		for promise, holds := range promised {
			if !holds(p) {
				continue
			}
			for strike, is := range strikes {
				if strike == "spill" && p.spilled || j.struck(p, is) {
					j.verdict.Seen[sight(promise, strike)]++
				}
			}
		}
	}
}

// struck reports that a fault began while the delivery was under way.
func (j *judgement) struck(p *pair, is func(*fault) bool) bool {
	from, until := p.tx.CommittedAt, p.settled.ArrivedAt
	return j.faults.latest(from, until, func(f *fault) bool { return f.Begin.After(from) && is(f) }) != nil
}
