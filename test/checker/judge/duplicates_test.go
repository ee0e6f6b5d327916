package judge_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
)

// sentTwice is an episode in which event 1 arrived at 10.0 s, was answered 10 ms later and arrived again at 12.0 s.
func sentTwice() (s *scene, to uuid.UUID) {
	s = newScene()
	to = s.subscribe(0, 1)
	s.event(9000, 1, "", to)
	s.request(10_000, 1, 1, to)
	s.request(12_000, 1, 2, to)
	return s, to
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	first := func(s *scene) *history.Receipt { return &s.h.Receipts[0] }
	cases := map[string]struct {
		change func(s *scene)
		class  string // of the explanation; empty: there is none
	}{
		"no fault":                       {func(*scene) {}, ""},
		"kill":                           {func(s *scene) { s.fault("kill-point", 11_000, 11_001, 1) }, "kill-point"},
		"kill just before it arrived":    {func(s *scene) { s.fault("kill-any", 9_960, 9_960, 1) }, "kill-any"},
		"kill before it arrived":         {func(s *scene) { s.fault("kill-any", 9_940, 9_940, 1) }, ""},
		"kill before, and the link held": {func(s *scene) { s.fault("link-receiver-hold", 8_500, 9_010, 1); s.fault("kill-any", 9_100, 9_100, 1) }, "kill-any"},
		"kill before, link held earlier": {func(s *scene) { s.fault("link-receiver-hold", 8_500, 8_990, 1); s.fault("kill-any", 9_100, 9_100, 1) }, ""},
		"kill long before":               {func(s *scene) { s.fault("kill-any", 8_000, 8_000, 1) }, ""},
		"kill after":                     {func(s *scene) { s.fault("kill-any", 12_100, 12_100, 1) }, ""},
		"the latest counts":              {func(s *scene) { s.fault("kill-point", 11_500, 11_501, 1); s.fault("kill-any", 11_000, 11_000, 1) }, "kill-point"},
		"pause":                          {func(s *scene) { s.fault("sigstop", 9_000, 11_000, 1) }, "sigstop"},
		"pause, not yet noticed":         {func(s *scene) { s.fault("sigstop", 2_000, 8_000, 1) }, "sigstop"},
		"pause that was over":            {func(s *scene) { s.fault("sigstop", -9_000, -2_000, 1) }, ""},
		"clean stop":                     {func(s *scene) { s.fault("sigterm", 11_000, 11_500, 1) }, ""},
		"Postgres killed":                {func(s *scene) { s.fault("postgres-kill", 11_000, 11_500, 1) }, ""},
		"Postgres cut off":               {func(s *scene) { s.fault("link-postgres-cut", 9_000, 11_500, 1) }, ""},
		"link cut":                       {func(s *scene) { s.fault("link-receiver-cut", 10_005, 10_005, 1) }, "link-receiver-cut"},
		"link cut just after the answer": {func(s *scene) { s.fault("link-receiver-cut", 10_900, 10_900, 1) }, "link-receiver-cut"},
		"link cut later":                 {func(s *scene) { s.fault("link-receiver-cut", 11_500, 11_500, 1) }, ""},
		"link held until it arrived":     {func(s *scene) { s.fault("link-receiver-hold", 3_000, 9_500, 1) }, "link-receiver-hold"},
		"receivers down":                 {func(s *scene) { s.fault("receiver-down", 10_005, 11_000, 1) }, "receiver-down"},
		"receivers failing":              {func(s *scene) { s.fault("receiver-error", 10_005, 11_000, 1) }, ""},
		"disk full":                      {func(s *scene) { s.fault("disk-full", 9_000, 11_500, 1) }, ""},
		"asked for":                      {func(s *scene) { ask(s, 11_000, 1) }, "redeliver"},
		"asked for another":              {func(s *scene) { ask(s, 11_000, 2) }, ""},
		"asked for before":               {func(s *scene) { ask(s, 9_500, 1) }, ""},
		"slow":                           {func(s *scene) { first(s).AnsweredAt, first(s).Behaviour = at(11_590), "slow" }, ""},
		"slower than the timeout":        {func(s *scene) { first(s).AnsweredAt, first(s).Behaviour = at(11_610), "slow" }, "timeout"},
		"arrived while the first was open": {func(s *scene) {
			first(s).AnsweredAt = at(11_590)
			s.h.Receipts[1].ArrivedAt = at(11_000)
		}, ""},
		"odd receiver": {func(s *scene) { first(s).Behaviour = "garbage" }, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := sentTwice()
			withAttempt(&s.h.Receipts[1], s, to, 2)
			c.change(s)
			if c.class == "" {
				v := s.one(t, history.Duplicate, "nothing explains")
				require.Equal(t, []int{1, 0, 1}, []int{v.Duplicates, v.Explained, v.Unexplained})
				require.Empty(t, v.DuplicatesByClass)
				return
			}
			v := s.clean(t)
			require.Equal(t, []int{1, 1, 0}, []int{v.Duplicates, v.Explained, v.Unexplained})
			require.Equal(t, map[string]int{c.class: 1}, v.DuplicatesByClass)
		})
	}
}

// ask has an operator redeliver an event.
func ask(s *scene, ms, event int) {
	s.fault("redeliver", ms, ms+100, 0).Deliveries = []uuid.UUID{deliveryID(event, s.expected[0].Subscription)}
}

func withAttempt(r *history.Receipt, s *scene, to uuid.UUID, attempt int) {
	seq, arrived := r.Seq, r.ArrivedAt
	made := *s.request(0, 1, attempt, to)
	s.h.Receipts = s.h.Receipts[:len(s.h.Receipts)-1]
	made.Seq, made.ArrivedAt, made.AnsweredAt = seq, arrived, r.AnsweredAt
	*r = made
}

func TestRetriesAreNoDuplicates(t *testing.T) {
	t.Parallel()
	s, _ := sentTwice()
	failed(&s.h.Receipts[0])
	require.Zero(t, s.clean(t).Duplicates)
}

func TestEachRepetitionNeedsAReason(t *testing.T) {
	t.Parallel()
	s, to := sentTwice()
	s.request(14_000, 1, 3, to)
	s.fault("kill-any", 10_500, 10_500, 1)
	v := s.one(t, history.Duplicate, "request 3")
	require.Equal(t, 2, v.Duplicates)
	s.fault("kill-any", 13_000, 13_000, 1)
	v = s.clean(t)
	require.Equal(t, 2, v.Kills)
	require.InDelta(t, 1.0, v.DuplicatesPerKill, 0)
	for _, point := range []string{"migrate.schema", "setup.slot"} {
		s.fault("kill-point", 100, 100, 0).Point = point
	}
	v = s.clean(t)
	require.Equal(t, 2, v.Kills, "of a set-up")
	require.InDelta(t, 1.0, v.DuplicatesPerKill, 0)
}

func TestRepetitionsOfWhatWasRecorded(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(s *scene)
		class  string // empty: unexplained
	}{
		"kill": {func(s *scene) { s.fault("kill-any", 11_000, 11_000, 1) }, ""},
		"recorded again later": {func(s *scene) {
			s.fault("kill-any", 11_000, 11_000, 1)
			s.snapshot(13_000).Delivered = rows(s.expected[0].Subscription)
		}, ""},
		"asked for":             {func(s *scene) { ask(s, 11_800, 1) }, "redeliver"},
		"asked for another":     {func(s *scene) { ask(s, 11_800, 2) }, ""},
		"asked for before":      {func(s *scene) { ask(s, 11_000, 1) }, ""},
		"paused":                {func(s *scene) { s.fault("sigstop", 9_000, 13_000, 1) }, "sigstop"},
		"woken shortly before":  {func(s *scene) { s.fault("sigstop", 2_500, 2_600, 1) }, "sigstop"},
		"woken long before":     {func(s *scene) { s.fault("sigstop", 1_000, 1_900, 1) }, ""},
		"slow, though":          {func(s *scene) { s.h.Receipts[0].AnsweredAt = at(11_700) }, ""},
		"never answered by 2xx": {func(s *scene) { failed(&s.h.Receipts[0]) }, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := sentTwice()
			s.snapshot(11_500).Delivered = rows(to)
			c.change(s)
			if c.class == "" {
				s.one(t, history.Duplicate, "was recorded as delivered")
				return
			}
			require.Equal(t, map[string]int{c.class: 1}, s.clean(t).DuplicatesByClass)
		})
	}
}

func TestAKillExplainsOnlyWhatWasInFlightOrUnrecorded(t *testing.T) {
	t.Parallel()
	build := func(settledMS, inFlight int) *scene {
		s := newScene()
		to := s.subscribe(0, 1)
		for n := 1; n <= 3; n++ {
			s.event(9000, n, "", to)
			s.request(settledMS, n, 1, to)
		}
		for n := 1; n <= 3; n++ {
			s.request(18_000, n, 1, to)
			s.request(18_500, n, 1, to) // twice, but only one kill
		}
		for i := 3; i < 9; i += 2 {
			failed(&s.h.Receipts[i])
		}
		s.fault("kill-any", 17_000, 17_000, inFlight)
		return s
	}
	v := build(13_000, 0).clean(t)
	require.Equal(t, 6, v.Duplicates)
	require.InDelta(t, 6.0, v.DuplicatesPerKill, 0)
	build(10_000, 3).clean(t)
	build(10_000, 2).one(t, history.Duplicate, "explains 3 duplicates, and 2 at most")

	t.Log("nothing could be recorded while Postgres was away")
	s := build(10_000, 0)
	s.fault("postgres-fast", 12_500, 13_000, 0)
	s.fault("disk-full", 12_900, 16_000, 0)
	s.clean(t)

	t.Log("what another fault explains as well is not charged to the kill")
	s = build(10_000, 0)
	s.fault("link-receiver-cut", 10_500, 10_500, 0)
	s.clean(t)

	t.Log("of two deaths in a row, the first one is charged")
	s = build(10_000, 0)
	s.fault("kill-any", 10_100, 10_100, 0)
	s.clean(t)
}

// TestWhatAKillCannotHaveLeftUnrecorded has event 1 sent again because of a kill at 17.0 s. Event 2 was answered
// shortly before that too, but its answer doesn't count when it can't be what was sent again.
func TestWhatAKillCannotHaveLeftUnrecorded(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		second int // answered then
		change func(s *scene, to uuid.UUID)
		clean  bool
	}{
		"may be unrecorded":    {16_500, func(*scene, uuid.UUID) {}, true},
		"before the last kill": {15_000, func(s *scene, _ uuid.UUID) { s.fault("kill-any", 16_000, 16_000, 0) }, false},
		"recorded": {15_000, func(s *scene, to uuid.UUID) {
			s.snapshot(16_000).Delivered = []history.Row{row(2, to)}
			s.last().Pending = rows(to)
		}, false},
		"recorded later":         {15_000, func(s *scene, to uuid.UUID) { s.snapshot(19_000).Delivered = []history.Row{row(1, to), row(2, to)} }, true},
		"answered by the noting": {17_060, func(*scene, uuid.UUID) {}, true},
		"answered after it":      {17_150, func(*scene, uuid.UUID) {}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(0, 1)
			s.event(9000, 1, "", to)
			s.event(9000, 2, "", to)
			s.request(16_600, 1, 1, to).AnsweredAt = at(17_145) // slow: not answered when the fault was noted
			s.request(c.second-10, 2, 1, to)
			s.request(18_000, 1, 1, to)
			s.fault("kill-any", 17_000, 17_040, 0)
			c.change(s, to)
			if c.clean {
				s.clean(t)
				return
			}
			s.one(t, history.Duplicate, "explains 1 duplicates, and 0 at most")
		})
	}
}
