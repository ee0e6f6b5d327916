package queue_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/queue"
)

// held queues n deliveries of a sequence in commit order, as the record transaction leaves them: the first one is due
// since a minute, the others are held. They stand behind what was queued before.
func (f *fixture) held(subscription uuid.UUID, sequence string, n int) []uuid.UUID {
	f.t.Helper()
	before := f.count("outbox.deliveries")
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
		due := "infinity"
		if i == 0 {
			due = "-1 minute"
		}
		f.do(`INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at,
				commit_lsn, commit_index, sequence, next_attempt_at)
			VALUES ($1, $2, gen_random_uuid(), 'test', '{}', '', false, now(), now(), '0/10', $3, $4,
				CASE WHEN $5 = 'infinity' THEN 'infinity' ELSE now() + nullif($5, 'infinity')::interval END)`,
			ids[i], subscription, before+i+1, sequence, due)
	}
	return ids
}

// failedTogether makes rows what a request that failed leaves behind: due at the same time, and nothing held.
func (f *fixture) failedTogether(ids ...uuid.UUID) uuid.UUID {
	f.t.Helper()
	batch := delivery.BatchID(ids)
	f.do("UPDATE outbox.deliveries SET batch = $2, round = 1, attempts = 1, next_attempt_at = now() - interval '30 s' WHERE id = ANY($1)", ids, batch)
	return batch
}

// settle removes rows, as the record transaction does with what was delivered, and wakes the next one.
func (f *fixture) settle(subscription uuid.UUID, ids ...uuid.UUID) {
	f.t.Helper()
	f.do("DELETE FROM outbox.deliveries WHERE id = ANY($1)", ids)
	require.NoError(f.t, f.queue.Wake(f.t.Context(), f.conn, subscription))
}

// A claim takes the head of a sequence and what follows it; nothing of it is claimed again while that is leased.
func TestSequenceIsClaimedFromItsHead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane := uuid.New()
	rows := f.held(lane, "key a", 5)
	claimed := f.claim(want(lane, 3))
	require.Equal(t, rows[:3], ids(claimed))
	require.Equal(t, "key a", claimed[0].Sequence)
	require.Empty(t, f.claim(want(lane, 3)), "what follows has to wait for these")
	f.settle(lane, rows[:3]...)
	require.Equal(t, rows[3:], ids(f.claim(want(lane, 3))))
}

// While its head waits for the next attempt nothing of a sequence is claimed, and others are.
func TestSequenceWaitsForItsHead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane := uuid.New()
	a, b := f.held(lane, "key a", 3), f.held(lane, "key b", 2)
	f.do("UPDATE outbox.deliveries SET next_attempt_at = now() + interval '1 hour' WHERE id = $1", a[0])
	require.Equal(t, b, ids(f.claim(want(lane, 10))))
	require.Empty(t, f.claim(want(lane, 10)))
}

// Many sequences share what is wanted: first all heads, then what follows them.
func TestHeadsComeBeforeRuns(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane := uuid.New()
	a, b, c := f.held(lane, "key a", 4), f.held(lane, "key b", 4), f.held(lane, "key c", 1)
	loose := f.add(lane, 1, -time.Hour)
	require.ElementsMatch(t, []uuid.UUID{a[0], b[0], c[0], loose[0]}, ids(f.claim(want(lane, 4))))
	f.settle(lane, a[0], b[0], c[0], loose[0])
	claimed := ids(f.claim(want(lane, 5)))
	require.Len(t, claimed, 5)
	require.Subset(t, claimed, []uuid.UUID{a[1], a[2], b[1], b[2]})
}

// Wherever a limit cuts, a sequence is cut at its end: what is claimed of it has no gap.
func TestLimitsCutRunsAtTheirEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lanes := []uuid.UUID{uuid.New(), uuid.New()}
	place := map[uuid.UUID]int{} // in its sequence
	for _, lane := range lanes {
		for s := range 3 {
			for i, id := range f.held(lane, fmt.Sprint("key ", s), 7) {
				place[id] = i
				f.do("UPDATE outbox.deliveries SET payload = repeat('x', $2) WHERE id = $1", id, 100*(1+(i*5+s)%7))
			}
		}
	}
	for _, c := range []struct{ n, perLane, all int }{
		{1, 1 << 20, 1 << 20}, {2, 1 << 20, 1 << 20}, {4, 1 << 20, 1 << 20}, {11, 1 << 20, 1 << 20}, {30, 1500, 1 << 20}, {30, 4000, 1 << 20},
		{30, 1 << 20, 1}, {30, 1 << 20, 3000}, {30, 1 << 20, 9000}, {30, 1 << 20, 1 << 20},
	} {
		tx, err := f.conn.Begin(t.Context())
		require.NoError(t, err)
		var wants []queue.Want
		for _, lane := range lanes {
			wants = append(wants, queue.Want{SubscriptionID: lane, N: c.n, Bytes: c.perLane, Lease: time.Minute})
		}
		claimed, err := f.queue.Claim(t.Context(), f.conn, wants, c.all)
		require.NoError(t, err)
		require.NotEmpty(t, claimed)
		next := map[string]int{}
		for _, d := range claimed {
			s := d.SubscriptionID.String() + d.Sequence
			require.Equal(t, next[s], place[d.ID], "%+v", c)
			next[s]++
		}
		require.NoError(t, tx.Rollback(t.Context()))
	}
}

// Leases that ran out leave several rows of a sequence due, and their times say nothing about their order: they are
// claimed in order, however few are wanted, and keep nobody else from being claimed.
func TestLapsedLeasesKeepTheOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane := uuid.New()
	rows := f.held(lane, "strict", 6)
	for i, id := range rows { // the last one has been due for longest
		f.do("UPDATE outbox.deliveries SET lease_owner = 'relay/s/1', next_attempt_at = now() - make_interval(mins => $2) WHERE id = $1", id, i+1)
	}
	for _, id := range rows[:3] {
		claimed := f.claim(want(lane, 1))
		require.Equal(t, []uuid.UUID{id}, ids(claimed))
		require.True(t, claimed[0].Again)
		f.do("DELETE FROM outbox.deliveries WHERE id = $1", id)
	}
	f.do("UPDATE outbox.deliveries SET lease_owner = NULL, next_attempt_at = now() + interval '1 hour' WHERE id = $1", rows[3])
	require.Empty(t, f.claim(want(lane, 10)), "their head waits for its next attempt")
	other := f.held(lane, "key b", 1)
	require.Equal(t, other, ids(f.claim(want(lane, 1))), "although the others have been due for longer")
	f.settle(lane, rows[3])
	require.Equal(t, rows[4:], ids(f.claim(want(lane, 10))))
}

// While somebody else has locked its head nothing of a sequence is claimed, nor is it waited for.
func TestLockedHeadIsPassedOver(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane := uuid.New()
	a, b := f.held(lane, "key a", 3), f.held(lane, "key b", 3)
	f.do("UPDATE outbox.deliveries SET next_attempt_at = now() - interval '1 s' WHERE id = $1", a[1])
	tx, err := f.connect().Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM outbox.deliveries WHERE id = $1 FOR UPDATE", a[0])
	require.NoError(t, err)
	f.do("SET lock_timeout = '1ms'") // waiting would be an error
	require.Equal(t, b, ids(f.claim(want(lane, 10))))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, a, ids(f.claim(want(lane, 10))))
}

// What failed in one request is claimed together, however little is wanted, keyed or not.
func TestFailedBatchIsClaimedWhole(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 5, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			lane := uuid.New()
			a, b, loose := f.held(lane, "key a", 4), f.held(lane, "key b", 2), f.add(lane, 2, -time.Second)
			for i := range 4 {
				f.held(lane, fmt.Sprint("key ", i), 1)
			}
			batch := f.failedTogether(a[0], a[1], a[2], b[0], loose[0], loose[1])
			f.do("UPDATE outbox.deliveries SET next_attempt_at = now() - interval '1 hour' WHERE batch = $1", batch) // its turn comes first
			got := map[uuid.UUID]bool{}
			for _, d := range f.claim(want(lane, n)) {
				got[d.ID] = true
				require.Equal(t, d.Batch == batch, d.Round == 1)
			}
			for _, id := range []uuid.UUID{a[0], a[1], a[2], b[0], loose[0], loose[1]} {
				require.True(t, got[id])
			}
			require.LessOrEqual(t, len(got), n+5)
		})
	}
}

// Of a batch that failed nothing is claimed behind a delivery that has to wait.
func TestFailedBatchKeepsTheOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane := uuid.New()
	a, b, c := f.held(lane, "key a", 3), f.held(lane, "key b", 3), f.held(lane, "key c", 2)
	f.failedTogether(a[1], a[2], b[0], b[1], c[0], c[1])
	f.do("UPDATE outbox.deliveries SET next_attempt_at = now() + interval '1 hour' WHERE id = $1", a[0])
	tx, err := f.connect().Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM outbox.deliveries WHERE id = $1 FOR UPDATE", b[0])
	require.NoError(t, err)
	require.Equal(t, c, ids(f.claim(want(lane, 1))))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, b, ids(f.claim(want(lane, 10))))
}

// Wake is for what others than the relay have changed: it makes the first of each sequence due, and nothing else.
func TestWake(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane, other := uuid.New(), uuid.New()
	a, b, theirs := f.held(lane, "key a", 3), f.held(lane, "key b", 3), f.held(other, "key a", 2)
	loose := f.add(lane, 1, time.Hour)
	f.do("UPDATE outbox.deliveries SET next_attempt_at = 'infinity' WHERE id = ANY($1)", []uuid.UUID{a[0], theirs[0], loose[0]})
	f.do("DELETE FROM outbox.deliveries WHERE id = $1", b[0])
	lanes, now, err := f.queue.Lanes(t.Context(), f.conn)
	require.NoError(t, err)
	for _, l := range lanes {
		require.True(t, l.Held)
		require.True(t, l.Due.After(now))
	}
	require.NoError(t, f.queue.Wake(t.Context(), f.conn, lane))
	require.ElementsMatch(t, []uuid.UUID{a[0], b[1], loose[0]}, f.due())
	require.NoError(t, f.queue.Wake(t.Context(), f.conn, other))
	require.ElementsMatch(t, []uuid.UUID{a[0], b[1], loose[0], theirs[0]}, f.due())
	lanes, _, err = f.queue.Lanes(t.Context(), f.conn)
	require.NoError(t, err)
	require.False(t, lanes[0].Held || lanes[1].Held)
}

// due lists the rows that are due.
func (f *fixture) due() []uuid.UUID {
	f.t.Helper()
	var all []uuid.UUID
	require.NoError(f.t, f.conn.QueryRow(f.t.Context(), "SELECT array_agg(id) FROM outbox.deliveries WHERE next_attempt_at <= now()").Scan(&all))
	return all
}
