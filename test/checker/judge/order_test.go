package judge_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
)

func ordering(text string) func(*history.Subscription) {
	return func(r *history.Subscription) { r.Ordering = text }
}

// overtaken is an episode in which event 2 arrived before event 1, of the same key, was delivered: that failed
// at 2.0 s, event 2 arrived at 3.0 s and event 1 again at 4.0 s.
func overtaken(change func(*history.Subscription)) (s *scene, to uuid.UUID) {
	s = newScene()
	to = s.subscribe(0, 1, change)
	s.event(1000, 1, "k", to)
	s.event(1001, 2, "k", to)
	failed(s.request(2000, 1, 1, to))
	s.request(3000, 2, 1, to)
	s.request(4000, 1, 2, to)
	return s, to
}

func TestOrder(t *testing.T) {
	t.Parallel()
	nothing := func(*scene) {}
	cases := map[string]struct {
		ordering string
		change   func(s *scene)
		violated bool
	}{
		"none":                     {"none", nothing, false},
		"key":                      {"key", nothing, true},
		"strict":                   {"strict", nothing, true},
		"key, another one":         {"key", func(s *scene) { s.expected[1].Event.Key = "other" }, false},
		"strict, another key":      {"strict", func(s *scene) { s.expected[1].Event.Key = "other" }, true},
		"key, without one":         {"key", func(s *scene) { s.expected[0].Event.Key, s.expected[1].Event.Key = "", "" }, false},
		"no longer promised":       {"key", func(s *scene) { s.subscribe(9000, 1, ordering("none")) }, false},
		"in time":                  {"key", func(s *scene) { s.h.Receipts[0].Status, s.h.Receipts = 200, s.h.Receipts[:2] }, false},
		"while the first was open": {"key", func(s *scene) { open(s, "slow", 3_500) }, true},
		"the clocks differ a bit":  {"key", func(s *scene) { open(s, "slow", 3_040) }, false},
		"early":                    {"key", func(s *scene) { open(s, "early", 3_500) }, true},
		"given up by its timeout":  {"key", func(s *scene) { open(s, "slow", 3_900) }, false},
		"a gap":                    {"key", func(s *scene) { s.h.Gaps = []history.Gap{{From: s.expected[0].LSN - 1, Until: s.expected[0].LSN}} }, false},
		"died, and the relay too":  {"key", func(s *scene) { s.h.Receipts[0].Attempt = 4; mendAttempt(s); s.fault("kill-any", 3_500, 3_500, 1) }, false},
		"only the relay died":      {"key", func(s *scene) { s.fault("kill-any", 3_500, 3_500, 1) }, true},
		"died, and brought back":   {"key", func(s *scene) { s.fault("receiver-error", 1_500, 2_500, 1); broughtBack(s, 1) }, false},
		"another was brought back": {"key", func(s *scene) { s.fault("receiver-error", 1_500, 2_500, 1); broughtBack(s, 9) }, true},
		"died, and came back":      {"key", func(s *scene) { s.fault("receiver-error", 1_500, 2_500, 1) }, true},
		"held back by the link":    {"key", func(s *scene) { s.fault("link-receiver-hold", 1_500, 3_500, 1) }, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := overtaken(ordering(c.ordering))
			c.change(s)
			if c.violated {
				require.Equal(t, 1, s.one(t, history.Order, "event 2").OrderViolations)
				return
			}
			require.Zero(t, s.clean(t).OrderViolations)
		})
	}
}

// broughtBack has an operator redeliver an event.
func broughtBack(s *scene, event int) {
	s.fault("redeliver", 2_900, 2_901, 1).Deliveries = []uuid.UUID{deliveryID(event, s.expected[0].Subscription)}
}

// open makes the first request of event 1 the only one, answered with 200 at the given time.
func open(s *scene, behaviour string, answeredMS int) {
	s.h.Receipts = s.h.Receipts[:2]
	r := &s.h.Receipts[0]
	r.Behaviour, r.Status, r.AnsweredAt = behaviour, 200, at(answeredMS)
}

// mendAttempt writes the first request's attempt into its body.
func mendAttempt(s *scene) {
	made := *s.request(2000, 1, s.h.Receipts[0].Attempt, s.expected[0].Subscription)
	s.h.Receipts = s.h.Receipts[:len(s.h.Receipts)-1]
	made.Seq = 1
	failed(&made)
	s.h.Receipts[0] = made
}

func TestOvertakingWhatWaits(t *testing.T) {
	t.Parallel()
	s, to := overtaken(ordering("key"))
	s.h.Receipts = s.h.Receipts[:2]
	s.subscribe(9000, 1, ordering("key"), func(r *history.Subscription) { r.Active = false })
	s.snapshot(60_000).Pending = rows(to)
	s.last().Delivered = []history.Row{row(2, to)}
	s.one(t, history.Order, "overtook event 1")
	s.last().Pending, s.last().Dead = nil, rows(to)
	s.clean(t)
}

func TestEachOvertakingCounts(t *testing.T) {
	t.Parallel()
	s, to := overtaken(ordering("strict"))
	s.event(1002, 3, "", to)
	s.request(3001, 3, 1, to)
	s.event(1003, 4, "", to)
	s.request(5000, 4, 1, to)
	v := s.judge()
	require.Equal(t, 2, v.OrderViolations)
	require.Equal(t, map[history.Kind]int{history.Order: 2}, v.Counts)
}

func TestOrdered(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"none": 0, "key": 2, "strict": 3} {
		s, to := overtaken(ordering(text))
		s.event(1002, 3, "", to)
		require.Equal(t, want, s.judge().Ordered, text)
	}
}
