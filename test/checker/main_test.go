package main

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/judge"
)

func names(actions []action) []string {
	all := make([]string, len(actions))
	for i, a := range actions {
		all[i] = a.String()
	}
	return all
}

// What is done depends on the seed only, so that an episode can be played again.
func TestActionsDependOnTheSeed(t *testing.T) {
	t.Parallel()
	one, other := newDeck(7), newDeck(7)
	other.take(40)
	require.Equal(t, names(one.take(200))[40:], names(other.take(160)))
	require.NotEqual(t, names(newDeck(7).take(200)), names(newDeck(8).take(200)))
}

// Episodes with kills take the deck one after the other, and what is calm holds no kill.
func TestDraw(t *testing.T) {
	t.Parallel()
	deck := newDeck(9)
	for episode := range 9 {
		actions, calm := draw(9, episode, 30)
		require.Equal(t, episode%3 == 1, calm)
		if !calm {
			require.Equal(t, names(deck.take(30)), names(actions), episode)
			continue
		}
		for _, a := range actions {
			require.NotContains(t, a.class, "kill")
			require.NotContains(t, a.class, "sigstop")
		}
	}
}

// The first lap holds everything that a valid run has hit, but for what belongs to set-up and to an episode's end.
func TestFirstLapHoldsEverything(t *testing.T) {
	t.Parallel()
	first := names(newDeck(1).lap())
	for _, name := range everything() {
		if name != killPoint && name != invalidate.class && !duringSetUp(fault.Kill(name)) {
			require.Contains(t, first, name)
		}
	}
	require.ElementsMatch(t, fault.Points(), append(setUpPoints(), workPoints()...))
}

func TestEveryMistakeHasATrial(t *testing.T) {
	t.Parallel()
	var tried []fault.Mistake
	for _, trial := range trials {
		tried = append(tried, trial.mistake)
		require.NotEmpty(t, trial.kinds, trial.mistake)
		require.Len(t, fromNames(trial.actions...), len(trial.actions))
	}
	require.ElementsMatch(t, fault.Mistakes(), tried)
}

func TestParse(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"--seed", "5", "--kills", "10", "--json"})
	require.NoError(t, err)
	require.Equal(t, []any{uint64(5), 10, true, time.Duration(0)}, []any{o.seed, o.kills, o.json, o.duration})
	o, err = parse(nil)
	require.NoError(t, err)
	require.Equal(t, 2*time.Minute, o.duration)

	for argument, message := range map[string]string{
		"--kills=-1":      "--kills -1: must be at least 0",
		"--rate=0":        "--rate 0: must be at least 1",
		"--duration=-1s":  "--duration -1s: must not be negative",
		"--duration=soon": "soon",
		"--bugs=typo":     `--bugs "typo": there is no such bug; there are`,
		"now":             `unexpected argument "now"`,
		"--faults":        "unknown flag: --faults",
	} {
		_, err := parse([]string{argument})
		require.ErrorContains(t, err, message, argument)
	}
}

// A run that did not hit everything proves less than it should, and is not good, nor is one with a finding.
func TestSummary(t *testing.T) {
	t.Parallel()
	r := &run{seed: 3, began: time.Now(), hits: map[string]int{}}
	for _, name := range everything() {
		r.hits[name]++
	}
	r.kills = 4
	seen := map[string]int{}
	for _, sight := range judge.Sights() {
		seen[sight] = 1
	}
	r.total.add(judge.Verdict{Seen: seen, Batches: 3, Batched: 7, Events: 2, Deliveries: 3, Duplicates: 2, Kills: 4, DuplicatesPerKill: 0.5, DuplicatesByClass: map[string]int{killRandom: 2}})
	s := r.summary()
	require.True(t, s.good())
	require.Equal(t, 0.5, s.DuplicatesPerKill)
	require.Equal(t, []int{3, 7, 6}, []int{s.Batches, s.Batched, len(s.Seen)})
	delete(seen, "batched under a takeover")
	require.Equal(t, []string{"batched under a takeover"}, r.summary().Missing)
	seen["batched under a takeover"] = 1

	text, err := json.Marshal(s)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(text, &fields))
	for _, name := range []string{"seed", "kills", "events", "deliveries", "lost", "phantom", "duplicates", "order_violations",
		"kill_points_hit", "kill_points", "faults", "valid"} {
		require.Contains(t, fields, name)
	}
	require.EqualValues(t, len(fault.Points()), fields["kill_points_hit"])

	delete(r.hits, string(fault.RecordCut))
	require.False(t, r.summary().good())
	require.Contains(t, r.summary().String(), "NOT VALID, never hit with a delivery in flight, or never seen: record.cut")
	r.options.only = []string{"sigstop"}
	require.True(t, r.summary().good(), "a part was asked for")
	require.False(t, r.summary().Valid, "and is no more than that")
	r.options.only = nil
	r.hits[string(fault.RecordCut)]++
	r.total.add(judge.Verdict{Lost: 1, Counts: map[history.Kind]int{history.Lost: 1}})
	require.False(t, r.summary().good())
	require.Contains(t, r.summary().String(), "WRONG: lost 1")
}

// A fault that struck while nothing was in flight proves nothing.
func TestHitsCountWithADeliveryInFlight(t *testing.T) {
	t.Parallel()
	r := &run{hits: map[string]int{}}
	r.hit(history.Fault{Class: killPoint, Point: "record.cut"})
	require.Contains(t, r.missing(), "record.cut")
	r.hit(history.Fault{Class: killPoint, Point: "record.cut", InFlight: 1})
	r.hit(history.Fault{Class: killPoint, Point: "setup.slot"})
	require.NotContains(t, r.missing(), "record.cut")
	require.NotContains(t, r.missing(), "setup.slot")
	require.Equal(t, 3, r.kills)
	require.False(t, slices.Contains(r.missing(), killPoint))
}
