package judge_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
)

// TestPositions has two deliveries at 1.0 s and a snapshot at 5.0 s. The first one was received before it, the
// second one fails then and is delivered after it.
func TestPositions(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(s *scene, now *history.Snapshot, first, second history.Row)
		text   string // of the finding; empty: clean
	}{
		"delivered and waiting": {func(_ *scene, now *history.Snapshot, first, second history.Row) {
			now.Delivered, now.Pending = []history.Row{first}, []history.Row{second}
		}, ""},
		"delivered and dead": {func(_ *scene, now *history.Snapshot, first, second history.Row) {
			now.Delivered, now.Dead = []history.Row{first}, []history.Row{second}
		}, ""},
		"both waiting": {func(s *scene, now *history.Snapshot, first, second history.Row) {
			now.Pending = []history.Row{first, second}
			s.last().Delivered = []history.Row{first, second}
		}, ""},
		"one missing": {func(_ *scene, now *history.Snapshot, first, _ history.Row) {
			now.Delivered = []history.Row{first}
		}, "passed event 2"},
		"behind the checkpoint": {func(s *scene, now *history.Snapshot, first, _ history.Row) {
			now.Delivered = []history.Row{first}
			now.Confirmed, now.Slot = s.expected[0].LSN, s.expected[0].LSN
		}, ""},
		"in a gap": {func(s *scene, now *history.Snapshot, first, _ history.Row) {
			now.Delivered = []history.Row{first}
			s.h.Gaps = []history.Gap{{From: s.expected[0].LSN, Until: s.expected[1].LSN}}
		}, ""},
		"subscription deleted": {func(s *scene, now *history.Snapshot, first, _ history.Row) {
			s.unsubscribe(4900, s.expected[0].Subscription)
			now.Delivered = []history.Row{first}
		}, "passed event 2"},
		"subscription deleted, dead": {func(s *scene, now *history.Snapshot, first, second history.Row) {
			s.unsubscribe(4900, s.expected[0].Subscription)
			now.Delivered, now.Dead = []history.Row{first}, []history.Row{second}
		}, ""},
		"another event's row": {func(s *scene, now *history.Snapshot, first, second history.Row) {
			other := s.subscribe(0, 2)
			s.event(5500, 3, "", other)
			s.request(5600, 3, 1, other)
			now.Delivered, now.Pending = []history.Row{first}, []history.Row{row(3, other)}
			s.last().Delivered = append(s.last().Delivered, second)
		}, "passed event 2"},
		"slot ahead": {func(_ *scene, now *history.Snapshot, first, second history.Row) {
			now.Delivered, now.Pending = []history.Row{first}, []history.Row{second}
			now.Slot = now.Confirmed + 1
		}, "ahead of the checkpoint"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(0, 1)
			s.event(1000, 1, "", to)
			s.event(1000, 2, "", to)
			s.request(1100, 1, 1, to)
			failed(s.request(1200, 2, 1, to))
			s.request(6000, 2, 2, to)
			first, second := row(1, to), row(2, to)
			s.snapshot(5000)
			s.snapshot(60_000).Delivered = []history.Row{second}
			c.change(s, &s.h.Snapshots[0], first, second)
			if c.text == "" {
				s.clean(t)
				return
			}
			s.one(t, history.Position, c.text)
		})
	}
}

func TestPositionsOfWhatHadNotArrived(t *testing.T) {
	t.Parallel()
	build := func(held ...int) *scene {
		s := newScene()
		to := s.subscribe(0, 1)
		s.subscribe(3000, 1, func(r *history.Subscription) { r.Active = false })
		s.event(1000, 1, "", to)
		s.event(1000, 2, "", to)
		now := s.snapshot(5000)
		for _, n := range held {
			now.Pending = append(now.Pending, row(n, to))
		}
		s.snapshot(60_000).Pending = []history.Row{row(1, to), row(2, to)}
		return s
	}
	build(1, 2).clean(t)
	build(1).one(t, history.Position, "passed event 2")
	build(2).one(t, history.Position, "passed event 1")
	require.Equal(t, map[history.Kind]int{history.Position: 2}, build().judge().Counts)
}
