package dispatch_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
)

// broken makes a lane whose circuit has just opened: everything failed for five seconds.
func (w *world) broken(t *testing.T, r receiver) *delivery.Settings {
	t.Helper()
	s := w.lane(r, func(s *delivery.Settings) { s.MaxInFlight = 1 })
	w.fail(t, s)
	return s
}

// fail has every attempt of a lane fail for five seconds, which opens its circuit.
func (w *world) fail(t *testing.T, s *delivery.Settings) {
	t.Helper()
	for i := range 21 {
		if i > 0 {
			pass(250 * time.Millisecond)
		}
		require.Zero(t, w.Counts().Circuits)
		require.Equal(t, 1, w.claimed(fresh(s, "x", 1)))
		synctest.Wait()
	}
	require.Equal(t, 1, w.Counts().Circuits)
}

// It takes a run of failures that lasts: neither a short burst nor a few over a long time will do.
func TestWhatOpensACircuit(t *testing.T) {
	const no, yes = 0, 1
	for _, c := range []struct {
		name    string
		n       int
		each    time.Duration
		reasons []delivery.Reason // of one attempt after the other, the last one of all that follow
		want    int
	}{
		{"twenty failures in less than five seconds", 20, 250 * time.Millisecond, []delivery.Reason{delivery.ReasonConnect}, no},
		{"twenty-one failures in five seconds", 21, 250 * time.Millisecond, []delivery.Reason{delivery.ReasonConnect}, yes},
		{"nineteen failures in a minute", 19, 3 * time.Second, []delivery.Reason{delivery.ReasonConnect}, no},
		{"twenty failures in a minute", 20, 3 * time.Second, []delivery.Reason{delivery.ReasonConnect}, yes},
		{"a success among them", 21, 250 * time.Millisecond, []delivery.Reason{delivery.ReasonConnect, delivery.ReasonNone, delivery.ReasonConnect}, no},
		{"only successes", 100, time.Second, []delivery.Reason{delivery.ReasonNone}, no},
		{"attempts that the relay broke off", 40, time.Second, []delivery.Reason{delivery.ReasonStopped}, no},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, 1, func(w *world) {
				n := 0
				s := w.lane(func(ctx context.Context, d *delivery.Delivery, s *delivery.Settings) delivery.Outcome {
					r := c.reasons[min(n, len(c.reasons)-1)]
					n++
					return takes(c.each, r)(ctx, d, s)
				}, func(s *delivery.Settings) { s.MaxInFlight = 1 })
				require.Equal(t, c.n, w.claimed(fresh(s, "a", c.n)))
				pass(time.Duration(c.n) * c.each)
				require.Equal(t, c.n, w.ended())
				require.Equal(t, c.want, w.Counts().Circuits)
			})
		})
	}
}

// While it is open, new deliveries take the way through the queue, what was claimed goes back, and the
// claimer is asked for one probe at a time, after pauses that double up to half a minute.
func TestOpenCircuitProbes(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.broken(t, takes(0, delivery.ReasonConnect))
		require.Zero(t, w.offer(fresh(s, "new", 1)))
		require.Zero(t, w.claimed(fresh(s, "late", 1)), "claimed before it opened")
		started := len(w.keys())
		for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			before := w.asked()
			pass(pause*time.Second - time.Millisecond)
			require.Zero(t, w.appetite(s), "before %d s", pause)
			require.Equal(t, before, w.asked())
			pass(time.Millisecond)
			require.Equal(t, 1, w.appetite(s), "after %d s", pause)
			require.Equal(t, before+1, w.asked(), "the claimer is woken for it")
			require.Equal(t, 1, w.claimed(fresh(s, "probe", 1)))
			synctest.Wait()
			started++
			require.Len(t, w.keys(), started)
			require.Equal(t, 1, w.Counts().Circuits)
		}
	})
}

func TestSuccessfulProbeClosesTheCircuit(t *testing.T) {
	in(t, 100, func(w *world) {
		heals := false
		s := w.broken(t, func(ctx context.Context, d *delivery.Delivery, s *delivery.Settings) delivery.Outcome {
			if heals {
				return takes(time.Second, "")(ctx, d, s)
			}
			return delivery.Outcome{Reason: delivery.ReasonConnect}
		})
		heals = true
		pass(time.Second)
		require.Equal(t, 1, w.claimed(fresh(s, "probe", 1)))
		synctest.Wait()
		require.Zero(t, w.appetite(s), "one probe at a time")
		require.Equal(t, 1, w.Counts().Circuits)
		pass(time.Second)
		require.Zero(t, w.Counts().Circuits)
		require.Equal(t, 2, w.appetite(s))
		require.Zero(t, w.offer(fresh(s, "new", 1)), "not past those that wait in the queue")
		w.Drained(func(uuid.UUID) bool { return true })
		require.Zero(t, w.offer(fresh(s, "new", 1)))
		w.Drained(func(uuid.UUID) bool { return false })
		require.Equal(t, 1, w.offer(fresh(s, "new", 1)))
	})
}

// A lane that only fails keeps others waiting if its deliveries wait in memory: they go to the queue, long
// before the circuit opens, and from there the lane tries them in small helpings with a rest after each.
func TestFalteringLaneLeavesMemory(t *testing.T) {
	in(t, 100, func(w *world) {
		reason := delivery.ReasonConnect
		s := w.lane(func(ctx context.Context, d *delivery.Delivery, s *delivery.Settings) delivery.Outcome {
			return takes(10*time.Millisecond, reason)(ctx, d, s)
		}, func(s *delivery.Settings) { s.MaxInFlight = 1 })
		all := fresh(s, "a", 30)
		require.Equal(t, 30, w.offer(all))
		pass(time.Second)
		require.Len(t, w.keys(), 20)
		require.Equal(t, all[20:], w.givenBack())
		require.Zero(t, w.Counts().Circuits)
		require.Zero(t, w.offer(fresh(s, "b", 1)), "what was given back goes first")
		w.Drained(func(uuid.UUID) bool { return false })
		require.Equal(t, 1, w.offer(fresh(s, "c", 3)))
		pass(time.Second)
		require.Zero(t, w.offer(fresh(s, "c", 1)), "it failed once more")
		require.Equal(t, 2, w.appetite(s))
		require.Equal(t, 2, w.claimed(fresh(s, "q", 2)))
		pass(30 * time.Millisecond)
		require.Zero(t, w.appetite(s), "it rests")
		pass(100 * time.Millisecond)
		require.Equal(t, 2, w.appetite(s))
		reason = delivery.ReasonNone
		w.Drained(func(uuid.UUID) bool { return false })
		require.Equal(t, 1, w.offer(fresh(s, "d", 3)))
		pass(time.Second)
		require.Equal(t, 3, w.offer(fresh(s, "e", 3)), "it has recovered")
	})
}

// What the lane had claimed when its circuit opened goes back to the queue.
func TestOpeningCircuitGivesBackWhatItClaimed(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(takes(250*time.Millisecond, delivery.ReasonTimeout), func(s *delivery.Settings) { s.MaxInFlight = 1 })
		all := fresh(s, "q", 30)
		require.Equal(t, 30, w.claimed(all))
		pass(time.Minute)
		require.Len(t, w.keys(), 21)
		require.Equal(t, all[21:], w.givenBack())
	})
}

// Attempts that were under way when the circuit opened do not prolong it when they fail later. No probe starts
// beside them, and the last of them wakes the claimer for one.
func TestStragglersDoNotOpenTheCircuitAgain(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.lane(func(ctx context.Context, d *delivery.Delivery, s *delivery.Settings) delivery.Outcome {
			while := time.Duration(0)
			if d.Event.Key == "slow0" {
				while = 8 * time.Second
			}
			return takes(while, delivery.ReasonTimeout)(ctx, d, s)
		}, func(s *delivery.Settings) { s.MaxInFlight = 2 })
		w.claimed(fresh(s, "slow", 1))
		w.fail(t, s) // at 5 s
		pass(2 * time.Second)
		require.Zero(t, w.appetite(s), "the pause is over, but one is still under way")
		w.Ate(s.SubscriptionID, true) // so the claimer says when it would have claimed
		asked := w.asked()
		pass(time.Second)
		require.Equal(t, 22, w.ended())
		require.Equal(t, asked+1, w.asked())
		require.Equal(t, 1, w.appetite(s))
	})
}

// Another URL is another receiver, and whoever activates a subscription vouches for it.
func TestNewSettingsCloseTheCircuit(t *testing.T) {
	for name, change := range map[string]func(*delivery.Settings){
		"another URL": func(s *delivery.Settings) { s.URL = "two" },
		"activated":   func(s *delivery.Settings) { s.Active = true },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 100, func(w *world) {
				s := w.broken(t, takes(0, delivery.ReasonConnect))
				if name == "activated" {
					s = w.changed(s, func(s *delivery.Settings) { s.Active = false })
				}
				same := w.changed(s, func(s *delivery.Settings) { s.Timeout = time.Second })
				require.Equal(t, name != "activated", w.Counts().Circuits == 1 && w.Counts().Active == 1)
				asked := w.asked()
				w.changed(same, change)
				require.Zero(t, w.Counts().Circuits)
				require.Equal(t, 2, w.appetite(s))
				require.Greater(t, w.asked(), asked, "rows may be waiting for it")
			})
		})
	}
}

// The pauses of the former receiver are not the new one's.
func TestNewReceiverBeginsWithTheShortestPause(t *testing.T) {
	in(t, 100, func(w *world) {
		s := w.broken(t, takes(0, delivery.ReasonConnect))
		for _, pause := range []time.Duration{1, 2, 4} {
			pass(pause * time.Second)
			require.Equal(t, 1, w.claimed(fresh(s, "probe", 1)))
		}
		s = w.changed(s, func(s *delivery.Settings) { s.URL = "two" })
		w.fail(t, s)
		pass(time.Second)
		require.Equal(t, 1, w.appetite(s))
	})
}
