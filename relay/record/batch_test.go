package record_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
)

// totals records outcomes of one subscription, in this order, and returns what they add to its statistics.
func totals(t *testing.T, outcomes ...delivery.Outcome) record.Total {
	t.Helper()
	f := newFixture(t)
	subscription := uuid.New()
	for _, o := range outcomes {
		f.finish(o, &delivery.Delivery{ID: uuid.New(), SubscriptionID: subscription, Event: &delivery.Event{CommittedAt: noon.Add(-time.Second)}, Queued: true})
	}
	b := f.cut(false)
	require.Len(t, b.Totals, 1)
	return *b.Totals[subscription]
}

func TestTotalsCountAttempts(t *testing.T) {
	late := failed
	late.StartedAt, late.Duration, late.Reason = noon.Add(time.Minute), 2*time.Second, delivery.ReasonTimeout
	got := totals(t, delivered, late, failed, delivered, stopped)
	got.Latency, got.Lag = [len(got.Latency)]int64{}, [len(got.Lag)]int64{}
	require.Equal(t, record.Total{Attempts: 4, Succeeded: 2, Failed: 2, Delivered: 2, Timeouts: 1, Microseconds: 2_090_000, LagMicroseconds: 2_060_000, Broken: true, Last: noon.Add(time.Minute)}, got)
}

// consecutive_failures goes on from the last batch unless a success came between.
func TestStreaks(t *testing.T) {
	for _, c := range []struct {
		outcomes []delivery.Outcome
		streak   int64
		broken   bool
	}{
		{[]delivery.Outcome{failed, failed}, 2, false},
		{[]delivery.Outcome{failed, delivered}, 0, true},
		{[]delivery.Outcome{failed, delivered, failed, failed}, 2, true},
		{[]delivery.Outcome{failed, stopped, failed}, 2, false},
	} {
		got := totals(t, c.outcomes...)
		require.Equal(t, c.streak, got.Streak)
		require.Equal(t, c.broken, got.Broken)
	}
}

// Bucket i counts attempts of at most 2^i milliseconds, the last one the rest.
func TestLatencyBuckets(t *testing.T) {
	for took, want := range map[time.Duration]int{
		-time.Second: 0, 0: 0, time.Millisecond: 0, 1001 * time.Microsecond: 1, 2 * time.Millisecond: 1, 2001 * time.Microsecond: 2,
		4 * time.Millisecond: 2, 5 * time.Millisecond: 3, 1024 * time.Millisecond: 10, 1025 * time.Millisecond: 11,
		(1 << 18) * time.Millisecond: 18, (1<<18 + 1) * time.Millisecond: 19, time.Hour: 19,
	} {
		o := delivered
		o.Duration = took
		var buckets [20]int64
		buckets[want] = 1
		require.Equal(t, buckets, totals(t, o).Latency, "%s", took)
	}
}

// The lag is that of deliveries from their commit, in the same buckets. The database's clock may be ahead.
func TestLagBuckets(t *testing.T) {
	for started, want := range map[time.Duration]int{-time.Hour: 0, -time.Second: 5, -970 * time.Millisecond: 6, 0: 11, time.Hour: 19} {
		o, missed := delivered, failed
		o.StartedAt, missed.StartedAt = noon.Add(started), noon.Add(started)
		var buckets [20]int64
		buckets[want] = 1
		require.Equal(t, buckets, totals(t, missed, o).Lag, "%s", started)
		require.EqualValues(t, max(started+time.Second+30*time.Millisecond, 0).Microseconds(), totals(t, o, missed).LagMicroseconds)
	}
}
