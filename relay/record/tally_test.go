package record_test

import (
	"math/big"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
)

// made is an event of that time whose id ends in these 48 bits, with so many deliveries.
func (f *fixture) made(p delivery.Position, created time.Time, end uint64, n int) []*delivery.Delivery {
	id := uuid.New()
	for i := range 6 {
		id[15-i] = byte(end >> (8 * i))
	}
	return f.enter(&delivery.Event{ID: id, Position: p, CreatedAt: created, Payload: []byte("{}"), Type: "x", CommittedAt: created}, n)
}

// counts are tallies with the digest as text.
type counts struct {
	events, matched int64
	digest          string
}

func tallies(b *record.Batch) map[time.Time]counts {
	all := map[time.Time]counts{}
	for minute, t := range b.Tallies {
		all[time.Unix(minute, 0).UTC()] = counts{t.Events, t.Matched, t.Digest.String()}
	}
	return all
}

// Every event is counted once, when it is cut: those that share a position's item with others, those of several
// minutes, and those that nobody gets.
func TestEventsAreCountedWhenTheyAreCut(t *testing.T) {
	f := newFixture(t)
	next := noon.Add(time.Minute)
	f.made(at(0x100, 1), noon, 1, 0)
	f.made(at(0x100, 2), noon.Add(59*time.Second), 2, 0)
	f.made(at(0x100, 3), next, 4, 0)
	f.made(at(0x100, 4), noon, 8, 2) // unfinished
	f.made(at(0x100, 5), noon, 16, 0)
	f.end(0x100)
	require.Equal(t, map[time.Time]counts{noon: {2, 0, "3"}, next: {1, 0, "4"}}, tallies(f.cut(false)))
	require.Empty(t, tallies(f.cut(false)))
	require.Equal(t, map[time.Time]counts{noon: {2, 2, "24"}}, tallies(f.cut(true)))
	require.Empty(t, tallies(f.cut(true)))

	f.enter(&delivery.Event{CreatedAt: time.Date(1969, 12, 31, 23, 58, 59, 999, time.UTC), Emitted: true, Position: at(0x200, 1)}, 0)
	require.Equal(t, map[time.Time]counts{time.Date(1969, 12, 31, 23, 58, 0, 0, time.UTC): {1, 0, "0"}}, tallies(f.cut(false)))
}

// Applications may give out ids that are all large: their sum does not fit into 64 bits.
func TestDigestOfManyLargeIDs(t *testing.T) {
	f := newFixture(t)
	const n = 1<<17 + 3
	for i := range uint64(n) {
		f.made(at(0x100, i+1), noon, 1<<48-1, 0)
	}
	want := new(big.Int).Mul(big.NewInt(1<<48-1), big.NewInt(n))
	require.Equal(t, want.String(), tallies(f.cut(false))[noon].digest)
}

// The table adds the batches up, a row a minute.
func TestStoreWritesTallies(t *testing.T) {
	l := newLedger(t)
	for i := range uint64(2) {
		for n := range uint64(3) {
			l.finish(delivered, l.made(at(0x100, 3*i+n+1), noon.Add(time.Duration(n)*30*time.Second), 1<<(8*n), 2)...)
		}
		require.NoError(t, l.record())
	}
	require.Equal(t, 2, l.count("recorded"))
	require.Equal(t, 1, l.count("recorded WHERE minute = '2026-03-01 12:00Z' AND events = 4 AND matched = 8 AND digest = 514"))
	require.Equal(t, 1, l.count("recorded WHERE minute = '2026-03-01 12:01Z' AND events = 2 AND matched = 4 AND digest = 131072"))
	require.Equal(t, 2, l.count(`recorded r WHERE minute = date_trunc('minute', minute, 'UTC')`))
}

// Statistics add up over the batches, of those with successes and of those without.
func TestStoreWritesTotals(t *testing.T) {
	l := newLedger(t)
	late := failed
	late.Reason = delivery.ReasonTimeout
	d := delivery.Delivery{SubscriptionID: uuid.New(), Queued: true, Event: &delivery.Event{CommittedAt: noon}}
	for _, batch := range [][]delivery.Outcome{{late, failed}, {delivered, late, delivered}, {late}, {failed}} {
		for _, o := range batch {
			again := d
			again.ID = uuid.New()
			l.finish(o, &again)
		}
		require.NoError(t, l.record())
	}
	// An attempt takes 30 ms, which is also the lag: at most 2^5.
	require.Equal(t, 1, l.count(`subscription_totals WHERE (attempts, succeeded, failed, delivered, timeouts, total_us, lag_us, consecutive_failures)
		= (7, 2, 5, 2, 3, 210000, 60000, 2) AND latency = '{0,0,0,0,0,7,0,0,0,0,0,0,0,0,0,0,0,0,0,0}' AND lag = '{0,0,0,0,0,2,0,0,0,0,0,0,0,0,0,0,0,0,0,0}'`))
}
