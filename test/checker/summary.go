package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/walhook/walhook/test/checker/history"
)

// summary is the result of a run.
type summary struct {
	Seed              uint64               `json:"seed"`
	Seconds           float64              `json:"seconds"`
	Episodes          int                  `json:"episodes"`
	Kills             int                  `json:"kills"`
	Events            int                  `json:"events"`     // committed
	Deliveries        int                  `json:"deliveries"` // an event for a subscription, each
	Dead              int                  `json:"dead"`       // given up after all retries, at the end
	Cancelled         int                  `json:"cancelled"`  // the subscription was deleted first
	Otherwise         int                  `json:"otherwise"`  // in a gap, and not for the subscription as it was when the event was made
	GivenUp           int                  `json:"given_up"`   // in a gap: messages, and rows that an operator chose to give up
	Recovered         int                  `json:"recovered"`  // in a gap, and delivered all the same
	Gaps              map[string]int       `json:"gaps"`       // that relays recovered from, by the code they gave
	Lost              int                  `json:"lost"`
	Phantom           int                  `json:"phantom"`
	Duplicates        int                  `json:"duplicates"`          // requests after one that was answered with 2xx
	Unexplained       int                  `json:"unexplained"`         // of them: without a fault that explains them
	DuplicatesByFault map[string]int       `json:"duplicates_by_fault"` // the explained ones
	DuplicatesPerKill float64              `json:"duplicates_per_kill"` // mean of those that a kill explains, by kills of relays
	Ordered           int                  `json:"ordered"`             // deliveries to which order is promised
	OrderViolations   int                  `json:"order_violations"`
	Batches           int                  `json:"batches"` // requests with several deliveries
	Batched           int                  `json:"batched"` // deliveries that came in one
	Seen              map[string]int       `json:"seen"`    // deliveries by what is promised of them and what struck while they were under way
	KillPointsHit     int                  `json:"kill_points_hit"`
	KillPoints        map[string]int       `json:"kill_points"` // hits with a delivery in flight
	Faults            map[string]int       `json:"faults"`      // by class, the same way
	Findings          map[history.Kind]int `json:"findings"`    // everything that is wrong, by kind
	Missing           []string             `json:"missing"`     // what was not hit: the run proves less than it should
	Records           []string             `json:"records"`     // folders of the episodes with findings
	Valid             bool                 `json:"valid"`       // everything was hit
	Error             string               `json:"error,omitempty"`
	partial           bool                 // it was asked to do a part only
}

// good reports whether nothing is wrong and everything was tried that should be.
func (s summary) good() bool {
	return (s.Valid || s.partial) && s.Error == "" && len(s.Findings) == 0 && len(s.Records) == 0
}

func (r *run) summary() summary {
	s := summary{Seed: r.seed, Seconds: time.Since(r.began).Seconds(), Episodes: len(r.total.verdicts), Kills: r.kills,
		DuplicatesByFault: map[string]int{}, KillPoints: map[string]int{}, Faults: map[string]int{}, Findings: map[history.Kind]int{},
		Seen: map[string]int{}, Gaps: map[string]int{}, Missing: r.missing(), Records: r.total.folders, partial: r.partial()}
	for _, p := range append(setUpPoints(), workPoints()...) {
		s.KillPoints[string(p)] = r.hits[string(p)]
		if r.hits[string(p)] > 0 {
			s.KillPointsHit++
		}
	}
	for class, n := range r.hits {
		if _, point := s.KillPoints[class]; !point {
			s.Faults[class] = n
		}
	}
	var byKills float64
	kills := 0
	for _, v := range r.total.verdicts {
		s.Events += v.Events
		s.Deliveries += v.Deliveries
		s.Dead += v.Dead
		s.Cancelled += v.Cancelled
		s.Otherwise += v.Otherwise
		s.GivenUp += v.GivenUp
		s.Recovered += v.Recovered
		s.Lost += v.Lost
		s.Phantom += v.Phantom
		s.Duplicates += v.Duplicates
		s.Unexplained += v.Unexplained
		s.Ordered += v.Ordered
		s.OrderViolations += v.OrderViolations
		kills += v.Kills
		byKills += v.DuplicatesPerKill * float64(v.Kills)
		s.Batches += v.Batches
		s.Batched += v.Batched
		for sight, n := range v.Seen {
			s.Seen[sight] += n
		}
		for code, n := range v.Gaps {
			s.Gaps[code] += n
		}
		for class, n := range v.DuplicatesByClass {
			s.DuplicatesByFault[class] += n
		}
		for kind, n := range v.Counts {
			s.Findings[kind] += n
		}
	}
	s.DuplicatesPerKill = byKills / float64(max(kills, 1))
	s.Valid = len(s.Missing) == 0
	return s
}

// String is the result for people.
func (s summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d episodes in %.0f s, %d kills, %d events, %d deliveries\n", s.Seed, s.Episodes, s.Seconds, s.Kills, s.Events, s.Deliveries)
	fmt.Fprintf(&b, "lost %d, phantom %d, dead %d, cancelled %d\n", s.Lost, s.Phantom, s.Dead, s.Cancelled)
	fmt.Fprintf(&b, "gaps %v: %d deliveries recovered, %d given up, %d decided otherwise\n", s.Gaps, s.Recovered, s.GivenUp, s.Otherwise)
	fmt.Fprintf(&b, "order promised to %d deliveries, violations %d; %d batches with %d deliveries\n", s.Ordered, s.OrderViolations, s.Batches, s.Batched)
	fmt.Fprintf(&b, "duplicates %d, unexplained %d, %.2f a kill\n", s.Duplicates, s.Unexplained, s.DuplicatesPerKill)
	fmt.Fprintf(&b, "kill points hit %d of %d\n", s.KillPointsHit, len(s.KillPoints))
	for _, sight := range slices.Sorted(maps.Keys(s.Seen)) {
		fmt.Fprintf(&b, "  %-22s %5d deliveries\n", sight, s.Seen[sight])
	}
	for _, class := range slices.Sorted(maps.Keys(s.Faults)) {
		fmt.Fprintf(&b, "  %-22s %5d", class, s.Faults[class])
		if n := s.DuplicatesByFault[class]; n > 0 {
			fmt.Fprintf(&b, "  explains %d duplicates", n)
		}
		b.WriteByte('\n')
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Findings)) {
		fmt.Fprintf(&b, "WRONG: %s %d\n", kind, s.Findings[kind])
	}
	for _, dir := range s.Records {
		fmt.Fprintf(&b, "records in %s\n", dir)
	}
	if s.partial {
		b.WriteString("a part only: it says nothing about what was not asked for\n")
	} else if len(s.Missing) > 0 {
		fmt.Fprintf(&b, "NOT VALID, never hit with a delivery in flight, or never seen: %s\n", strings.Join(s.Missing, ", "))
	} else if s.good() {
		b.WriteString("nothing lost, nothing invented, everything tried\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
