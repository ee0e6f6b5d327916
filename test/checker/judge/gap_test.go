package judge_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/judge"
)

// lose takes the slot away from 9.5 s to 11.0 s. A relay recovers the transaction of an event.
func (s *scene) lose(event int) *history.Gap {
	lsn := s.find(event).LSN
	s.h.Gaps = append(s.h.Gaps, history.Gap{From: lsn - 1, Until: lsn, Recovered: true, Code: "slot_missing", Begin: at(9_500), End: at(11_000)})
	s.fault("slot-dropped", 9_500, 11_000, 1)
	return &s.h.Gaps[len(s.h.Gaps)-1]
}

// TestLossInAGap has an event at 9.0 s for one subscription, in a gap that a relay recovered from.
func TestLossInAGap(t *testing.T) {
	t.Parallel()
	type fields = judge.Verdict
	cases := map[string]struct {
		change func(s *scene, g *history.Gap, to uuid.UUID)
		want   func(v fields) int // which must be 1
		text   string             // of the finding; empty: clean
	}{
		"delivered":        {func(s *scene, _ *history.Gap, to uuid.UUID) { s.request(10_500, 1, 1, to) }, func(v fields) int { return v.Delivered * v.Recovered }, ""},
		"delivered before": {func(s *scene, _ *history.Gap, to uuid.UUID) { s.request(9_100, 1, 1, to) }, func(v fields) int { return v.Delivered - v.Recovered }, ""},
		"never arrived":    {func(*scene, *history.Gap, uuid.UUID) {}, func(v fields) int { return v.Lost }, "never arrived"},
		"given up":         {func(_ *scene, g *history.Gap, _ uuid.UUID) { g.Recovered = false }, func(v fields) int { return v.GivenUp }, ""},
		"a message":        {func(s *scene, _ *history.Gap, _ uuid.UUID) { s.expected[0].Event.Emitted = true }, func(v fields) int { return v.GivenUp }, ""},
		"a message that the stream had": {func(s *scene, g *history.Gap, _ uuid.UUID) {
			s.expected[0].Event.Emitted = true
			g.Since, g.From = g.From, g.Until
		}, func(v fields) int { return v.Lost }, "never arrived"},
		"a row that the stream had not": {func(_ *scene, g *history.Gap, _ uuid.UUID) { g.Since, g.From = g.From, g.Until }, func(v fields) int { return v.Lost }, "never arrived"},
		"deleted before": {func(s *scene, g *history.Gap, to uuid.UUID) {
			s.unsubscribe(9_600, to)
			g.Until = s.lsn
		}, func(v fields) int { return v.Cancelled }, ""},
		"deleted afterwards": {func(s *scene, _ *history.Gap, to uuid.UUID) { s.unsubscribe(9_600, to) }, func(v fields) int { return v.Lost }, "neither dead nor waiting"},
		"changed while its transaction ran": {func(s *scene, _ *history.Gap, _ uuid.UUID) {
			s.expected[0].Event.CreatedAt = at(0)
		}, func(v fields) int { return v.Otherwise }, ""},
		"changed before": {func(s *scene, _ *history.Gap, _ uuid.UUID) {
			s.expected[0].Event.CreatedAt = at(600)
		}, func(v fields) int { return v.Lost }, "never arrived"},
		"changed by a transaction that began before": {func(s *scene, _ *history.Gap, _ uuid.UUID) {
			s.subscribe(9_300, 1, func(r *history.Subscription) { r.Active, r.ChangedAt = false, at(8_900) })
			s.subscribe(9_400, 1)
		}, func(v fields) int { return v.Otherwise }, ""},
		"changed in a way that makes no difference": {func(s *scene, _ *history.Gap, _ uuid.UUID) {
			s.subscribe(9_300, 1, func(r *history.Subscription) { r.URL, r.ChangedAt = "http://127.0.0.1:1/t", at(8_900) })
		}, func(v fields) int { return v.Lost }, "never arrived"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(500, 1)
			s.event(9_000, 1, "", to)
			c.change(s, s.lose(1), to)
			s.snapshot(60_000).Confirmed = 0 // positions have their own test
			s.last().Slot = 0
			var v judge.Verdict
			if c.text == "" {
				v = s.clean(t)
			} else {
				v = s.one(t, history.Lost, c.text)
			}
			require.Equal(t, 1, c.want(v))
		})
	}
}

// TestRulesInAGap has an event of a transaction from 8.0 s to 9.0 s, whose only subscription was deactivated at 8.5 s, and a
// request with it.
func TestRulesInAGap(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change  func(s *scene, g *history.Gap)
		phantom bool
	}{
		"in the gap": {func(*scene, *history.Gap) {}, false},
		"behind it":  {func(_ *scene, g *history.Gap) { g.From, g.Until = g.From-0x10, g.From }, true},
		"before it, and looked at": {func(_ *scene, g *history.Gap) {
			g.Floor, g.From, g.Until = uint32(g.Until), g.Until, g.Until+0x1000
		}, false},
		"before it, and known to be recorded": {func(_ *scene, g *history.Gap) {
			g.Floor, g.From, g.Until = uint32(g.Until)+1001, g.Until, g.Until+0x1000
		}, true},
		"looked at, and made afterwards": {func(s *scene, g *history.Gap) {
			s.h.Txs[2].Items[0].Event.CreatedAt = at(8_600)
			g.Floor, g.From, g.Until = 0, g.Until, g.Until+0x1000
		}, true},
		"made afterwards, and the stream lacked the change": {func(s *scene, g *history.Gap) {
			s.h.Txs[2].Items[0].Event.CreatedAt = at(8_600)
			g.Since, g.From, g.Begin = g.From, g.Until, at(8_400)
		}, false},
		"made afterwards, and the stream was altered later": {func(s *scene, g *history.Gap) {
			s.h.Txs[2].Items[0].Event.CreatedAt = at(8_600)
			g.Since, g.From, g.Begin = g.From, g.Until, at(8_550)
		}, true},
		"a message": {func(s *scene, _ *history.Gap) { s.h.Txs[2].Items[0].Event.Emitted = true }, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(500, 1)
			s.subscribe(8_500, 1, func(r *history.Subscription) { r.Active = false })
			s.event(9_000, 1, "", to).CreatedAt = at(8_000)
			s.request(10_000, 1, 1, to)
			g := s.lose(1)
			s.expected = nil
			c.change(s, g)
			if c.phantom {
				s.one(t, history.Phantom, "event 1 is not for this subscription")
				return
			}
			s.clean(t)
		})
	}
}

// TestDuplicatesOfAGap has an event that arrived at 10.0 s and again at 12.0 s.
func TestDuplicatesOfAGap(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change    func(s *scene, g *history.Gap)
		explained bool
	}{
		"not recorded":                  {func(*scene, *history.Gap) {}, true},
		"recorded":                      {func(_ *scene, g *history.Gap) { g.From, g.Until = g.Until, g.Until+1 }, false},
		"recorded, what the stream had": {func(_ *scene, g *history.Gap) { g.Since, g.From = g.From, g.Until }, false},
		"not in this gap":               {func(_ *scene, g *history.Gap) { g.Begin, g.End = at(1_000), at(2_000) }, false},
		"recovered, and then again": {func(s *scene, g *history.Gap) {
			g.Begin, g.End = at(8_000), at(9_000)
			s.h.Faults[0].Begin, s.h.Faults[0].End = at(8_000), at(9_000)
		}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := sentTwice()
			withAttempt(&s.h.Receipts[1], s, to, 2)
			c.change(s, s.lose(1))
			if !c.explained {
				s.one(t, history.Duplicate, "nothing explains")
				return
			}
			require.Equal(t, map[string]int{"slot-dropped": 1}, s.clean(t).DuplicatesByClass)
		})
	}
}

// TestOrderAroundAGap has event 2 overtake event 1.
func TestOrderAroundAGap(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		gap      func(s *scene, g *history.Gap)
		violated bool
	}{
		"both in it":               {func(s *scene, g *history.Gap) { g.Until = s.expected[1].LSN }, false},
		"one before, the other in": {func(s *scene, g *history.Gap) { g.From, g.Until = g.Until, s.expected[1].LSN }, true},
		"one in, the other after":  {func(*scene, *history.Gap) {}, true},
		"given up":                 {func(_ *scene, g *history.Gap) { g.Recovered = false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := overtaken(ordering("key"))
			c.gap(s, s.lose(1))
			if c.violated {
				s.one(t, history.Order, "event 2")
				return
			}
			s.clean(t)
		})
	}
}

// TestPositionsInAGap: what a recovery has passed by is as durable as anything.
func TestPositionsInAGap(t *testing.T) {
	t.Parallel()
	build := func(emitted bool) *scene {
		s := newScene()
		to := s.subscribe(0, 1)
		s.event(9_000, 1, "", to).Emitted = emitted
		s.lose(1)
		s.request(20_000, 1, 1, to)
		s.snapshot(15_000)
		s.snapshot(60_000).Delivered = rows(to)
		return s
	}
	build(true).clean(t)
	build(false).one(t, history.Position, "passed event 1")
}

// The relay's own events have no number, and are for nobody who does not name them.
func TestEventsOfTheRelay(t *testing.T) {
	t.Parallel()
	s, _, _ := delivered()
	e := &history.Event{ID: id(1, 9), Type: "walhook.alert.slot_recovered", Payload: []byte(`{}`)}
	s.tx(1200, history.Item{Event: e})
	s.clean(t)
	e.Type = "walhooks"
	s.one(t, history.Truth, "1 events in the WAL have no number")
}

// A change that the stream lacks may come too late for an event behind it.
func TestSettingsInAGap(t *testing.T) {
	t.Parallel()
	s := newScene()
	to := s.subscribe(500, 1)
	s.subscribe(8_500, 1, func(r *history.Subscription) { r.URL = "http://127.0.0.1:1/new" })
	s.event(9_000, 1, "", to)
	s.request(9_100, 1, 1, to)
	s.one(t, history.Identity, "where no URL of the 1 that were valid leads")
	g := s.lose(1)
	s.one(t, history.Identity, "where no URL of the 1 that were valid leads")
	g.Since, g.From = g.From, g.Until
	s.clean(t)
}
