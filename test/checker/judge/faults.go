package judge

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
)

// effect is what a fault can be blamed for.
type effect int

const (
	none         effect = iota // a clean stop and whatever is not named below
	killed                     // a relay died
	paused                     // a relay stood still while another took over
	asked                      // an operator wanted it sent again
	receiverLink               // requests or answers were lost or late
	receivers                  // receivers did not answer well
	postgres                   // nothing could be recorded for a while
	gapped                     // the slot was taken away, or something from it
)

// effectOf goes by the beginning of the class. Any link but that to Postgres leads to the receivers.
func effectOf(class string) effect {
	for _, known := range []struct {
		prefix string
		effect effect
	}{
		{"kill", killed}, {"sigstop", paused}, {"redeliver", asked}, {"replay", asked},
		{"postgres", postgres}, {"link-postgres", postgres}, {"disk-full", postgres},
		{"slot-", gapped}, {"publication-", gapped},
		{"link-", receiverLink}, {"receiver-down", receiverLink}, {"receiver", receivers},
	} {
		if strings.HasPrefix(class, known.prefix) {
			return known.effect
		}
	}
	return none
}

// noticing is how long a relay may take to see what happened while it stood still or was cut off, and how long a
// request that it has begun may take to arrive.
const noticing = 10 * time.Second

type fault struct {
	*history.Fault
	effect
	until time.Time // its end, or when a relay that was paused has noticed that
}

func (f *fault) during(from, to time.Time) bool { return !f.Begin.After(to) && !f.until.Before(from) }

// asks reports that an operator sent one of the deliveries again.
func (f *fault) asks(ids ...uuid.UUID) bool {
	return slices.ContainsFunc(ids, func(id uuid.UUID) bool { return slices.Contains(f.Deliveries, id) })
}

// duringSetUp reports that no relay was killed, but what makes the schema and the slot, before anything is sent.
func (f *fault) duringSetUp() bool {
	return strings.HasPrefix(f.Point, "migrate.") || strings.HasPrefix(f.Point, "setup.")
}

// faults are sorted by their beginning.
type faults struct {
	list    []fault
	longest time.Duration
}

func newFaults(list []history.Fault) faults {
	var all faults
	for i := range list {
		f := fault{&list[i], effectOf(list[i].Class), list[i].End}
		if f.effect == paused {
			f.until = f.End.Add(noticing)
		}
		all.list = append(all.list, f)
		all.longest = max(all.longest, f.until.Sub(f.Begin))
	}
	slices.SortStableFunc(all.list, func(a, b fault) int { return a.Begin.Compare(b.Begin) })
	return all
}

// latest is the fault that began last of those that lasted at some moment of the interval and fit.
func (s *faults) latest(from, to time.Time, fits func(*fault) bool) *fault {
	i, _ := slices.BinarySearchFunc(s.list, to, func(f fault, t time.Time) int {
		if f.Begin.After(t) {
			return 1
		}
		return -1
	})
	earliest := from.Add(-s.longest)
	for i--; i >= 0 && !s.list[i].Begin.Before(earliest); i-- {
		if f := &s.list[i]; f.during(from, to) && fits(f) {
			return f
		}
	}
	return nil
}

// firstDeath is the first end or pause of a relay that began in the interval.
func (s *faults) firstDeath(from, to time.Time) *fault {
	i, _ := slices.BinarySearchFunc(s.list, from, func(f fault, t time.Time) int {
		if f.Begin.Before(t) {
			return -1
		}
		return 1
	})
	for ; i < len(s.list) && !s.list[i].Begin.After(to); i++ {
		if s.list[i].ended() {
			return &s.list[i]
		}
	}
	return nil
}

// any reports whether something with one of the effects lasted at some moment of the interval.
func (s *faults) any(from, to time.Time, effects ...effect) bool {
	return s.latest(from, to, func(f *fault) bool { return slices.Contains(effects, f.effect) }) != nil
}

// deathBefore is when the latest end or pause of a relay before another one began; zero when there was none.
func (s *faults) deathBefore(t time.Time) time.Time {
	var latest time.Time
	for i := range s.list {
		if f := &s.list[i]; f.ended() && f.Begin.Before(t) {
			latest = f.Begin
		}
	}
	return latest
}

// blinded reports that at a moment a relay may not have known yet what had been committed since another one, because
// it could not read it or stood still, or that what it had sent before was held back.
func (s *faults) blinded(since, at time.Time) bool {
	return s.latest(since, at, func(f *fault) bool {
		blinds := f.effect == postgres || f.effect == paused || f.Class == "link-receiver-hold"
		return blinds && !f.End.Add(noticing).Before(at)
	}) != nil
}

// ended reports that a relay could no longer record what it had sent.
func (e effect) ended() bool { return e == killed || e == paused }

// unrecordedSince is the earliest moment at which something may have been sent that was not recorded yet at
// the given one: recording lags by some seconds at most, and stands still while Postgres can't be reached.
func (s *faults) unrecordedSince(t time.Time) time.Time {
	const recordingLag = 5 * time.Second
	since := t.Add(-recordingLag)
	for i := len(s.list) - 1; i >= 0; i-- {
		f := &s.list[i]
		if f.effect == postgres && f.during(since, t) && f.Begin.Add(-recordingLag).Before(since) {
			since = f.Begin.Add(-recordingLag)
		}
	}
	return since
}
