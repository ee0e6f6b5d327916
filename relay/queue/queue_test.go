package queue_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/queue"
	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// fixture is a queue in a database of its own, with the checkpoint of epoch 1.
type fixture struct {
	t     *testing.T
	url   string
	conn  *pgx.Conn
	queue *queue.Queue
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, url: harness.Database(t), queue: &queue.Queue{Slot: "s", Epoch: 1, Owner: "relay/s/1"}}
	f.conn = f.connect()
	f.do(`INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, epoch, system_identifier, timeline)
		VALUES ('s', '0/1', '0/1', now(), 1, 'system', 1)`)
	return f
}

func (f *fixture) connect() *pgx.Conn {
	f.t.Helper()
	conn, err := pgx.Connect(f.t.Context(), f.url)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(f.t.Context())) })
	return conn
}

func (f *fixture) do(sql string, args ...any) {
	f.t.Helper()
	_, err := f.conn.Exec(f.t.Context(), sql, args...)
	require.NoError(f.t, err, sql)
}

func (f *fixture) count(where string, args ...any) int {
	f.t.Helper()
	var n int
	require.NoError(f.t, f.conn.QueryRow(f.t.Context(), "SELECT count(*) FROM "+where, args...).Scan(&n), where)
	return n
}

// add queues n deliveries of a subscription that are due at an offset from now, a millisecond apart, and
// returns their ids in the order of being due. Their commit order is the reverse.
func (f *fixture) add(subscription uuid.UUID, n int, due time.Duration) []uuid.UUID {
	f.t.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
		f.do(`INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at,
				commit_lsn, commit_index, next_attempt_at)
			VALUES ($1, $2, $3, 'test', '{}', '', false, now(), now(), '0/10', $4, now() + make_interval(secs => $5))`,
			ids[i], subscription, uuid.New(), n-i, (due + time.Duration(i)*time.Millisecond).Seconds())
	}
	return ids
}

func (f *fixture) claim(wants ...queue.Want) []*delivery.Delivery {
	f.t.Helper()
	claimed, err := f.queue.Claim(f.t.Context(), f.conn, wants, 1<<30)
	require.NoError(f.t, err)
	return claimed
}

func ids(all []*delivery.Delivery) []uuid.UUID {
	out := make([]uuid.UUID, len(all))
	for i, d := range all {
		out[i] = d.ID
	}
	return out
}

func want(subscription uuid.UUID, n int) queue.Want {
	return queue.Want{SubscriptionID: subscription, N: n, Bytes: 1 << 30, Lease: time.Minute}
}

func TestLanesNamesEachSubscriptionOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lanes, _, err := f.queue.Lanes(t.Context(), f.conn)
	require.NoError(t, err)
	require.Empty(t, lanes)

	a, b := uuid.UUID{1}, uuid.UUID{2}
	f.add(b, 3, time.Hour)
	f.add(a, 50, time.Minute)
	f.add(a, 1, -time.Minute)
	before := time.Now()
	lanes, now, err := f.queue.Lanes(t.Context(), f.conn)
	require.NoError(t, err)
	require.WithinRange(t, now, before.Add(-time.Second), time.Now().Add(time.Second), "the database's clock, on this machine")
	require.Len(t, lanes, 2)
	require.Equal(t, []uuid.UUID{a, b}, []uuid.UUID{lanes[0].SubscriptionID, lanes[1].SubscriptionID})
	require.WithinDuration(t, now.Add(-time.Minute), lanes[0].Due, 10*time.Second, "of the first row")
	require.WithinDuration(t, now.Add(time.Hour), lanes[1].Due, 10*time.Second)
}

// A lane gets what it wants, whatever others have waiting, and the rows that are due first.
func TestClaimIsFair(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	busy, small, absent := uuid.New(), uuid.New(), uuid.New()
	first := f.add(busy, 100, -2*time.Hour)
	few := f.add(small, 2, -time.Minute)
	got := map[uuid.UUID][]uuid.UUID{}
	for _, d := range f.claim(want(busy, 5), want(small, 5), want(absent, 5)) {
		got[d.SubscriptionID] = append(got[d.SubscriptionID], d.ID)
	}
	require.ElementsMatch(t, first[:5], got[busy])
	require.ElementsMatch(t, few, got[small])
	require.Len(t, got, 2)
	require.ElementsMatch(t, first[5:8], ids(f.claim(want(busy, 3))), "the next ones")
}

// A claim ends with the row that reaches its bytes, a lane's part of it with the row that reaches the lane's; what
// is left over is nobody's, and comes next.
func TestClaimIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lanes := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	for _, lane := range lanes {
		f.add(lane, 10, -time.Minute)
	}
	f.do("UPDATE outbox.deliveries SET payload = repeat('x', 100000)")
	claim := func(perLane, all int) map[uuid.UUID]int {
		var wants []queue.Want
		for _, lane := range lanes {
			wants = append(wants, queue.Want{SubscriptionID: lane, N: 10, Bytes: perLane, Lease: time.Minute})
		}
		claimed, err := f.queue.Claim(t.Context(), f.conn, wants, all)
		require.NoError(t, err)
		got := map[uuid.UUID]int{}
		for _, d := range claimed {
			require.Equal(t, 100_000+256+len("test"), d.Event.Size(), "what the query counts")
			got[d.SubscriptionID]++
		}
		return got
	}
	require.Equal(t, map[uuid.UUID]int{lanes[0]: 2, lanes[1]: 2, lanes[2]: 1}, claim(1<<30, 450_000), "a share for each")
	require.Equal(t, map[uuid.UUID]int{lanes[0]: 2, lanes[1]: 2, lanes[2]: 2}, claim(150_000, 1<<30))
	require.Equal(t, map[uuid.UUID]int{lanes[0]: 1}, claim(1, 1), "one is always possible")
	require.Equal(t, 30-12, f.count("outbox.deliveries WHERE lease_owner IS NULL AND next_attempt_at <= now()"))
	require.Equal(t, map[uuid.UUID]int{lanes[0]: 5, lanes[1]: 6, lanes[2]: 7}, claim(1<<30, 1<<30))
}

func TestClaimReturnsCommitOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane := uuid.New()
	f.add(lane, 20, -time.Minute)
	claimed := f.claim(want(lane, 20))
	require.Len(t, claimed, 20)
	for i := 1; i < len(claimed); i++ {
		require.True(t, claimed[i].Event.Position.After(claimed[i-1].Event.Position), "%s after %s",
			claimed[i].Event.Position, claimed[i-1].Event.Position)
	}
}

// A claimed row is nobody else's until its lease ends, and a row that is not due nobody's at all.
func TestClaimLeases(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane := uuid.New()
	due, later := f.add(lane, 1, -time.Second), f.add(lane, 1, time.Hour)
	claimed := f.claim(want(lane, 10))
	require.Equal(t, due, ids(claimed))
	require.True(t, claimed[0].Queued)
	require.WithinDuration(t, time.Now().Add(time.Minute), claimed[0].Lease, 10*time.Second)
	require.Equal(t, 1, f.count("outbox.deliveries WHERE id = $1 AND lease_owner = 'relay/s/1' AND next_attempt_at BETWEEN now() + '50 s' AND now() + '60 s'", due[0]))
	require.Equal(t, 1, f.count("outbox.deliveries WHERE id = $1 AND lease_owner IS NULL", later[0]), "the other one is as it was")
	require.Empty(t, f.claim(want(lane, 10)))

	f.do("UPDATE outbox.deliveries SET next_attempt_at = now() WHERE id = $1", due[0]) // the lease ends
	require.Equal(t, due, ids(f.claim(want(lane, 10))))
}

func TestClaimCarriesTheDelivery(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	committed := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	const payload = `{"b": 1.10, "a": 123456789012345678901234567890, "text": "ä\u0001"}` // text keeps it as it is
	full, bare, lane, event := uuid.UUID{1}, uuid.UUID{2}, uuid.New(), uuid.New()
	const insert = `INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, key, tenant, source, correlation_id, headers,
		emitted, created_at, committed_at, commit_lsn, commit_index, attempts, round, next_attempt_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13::text::pg_lsn, $14, $15, $16, now())`
	f.do(insert, full, lane, event, "patient.created", payload, "k", "t", "src", "cor", `{"traceparent": "x"}`, true, committed, "1/A", 7, 5, 2)
	f.do(insert, bare, lane, event, "x", "null", nil, "", nil, nil, nil, false, committed, "1/B", 0, 0, 0)

	claimed := f.claim(want(lane, 10))
	require.Len(t, claimed, 2)
	for _, d := range claimed {
		d.Lease = time.Time{}
		require.Equal(t, time.UTC, d.Event.CommittedAt.Location(), "it is written into envelopes")
		require.True(t, committed.Equal(d.Event.CreatedAt))
		d.Event.CreatedAt = committed
	}
	require.Equal(t, &delivery.Delivery{ID: full, SubscriptionID: lane, Attempts: 5, Round: 2, Queued: true, Event: &delivery.Event{
		ID: event, Type: "patient.created", Payload: []byte(payload), Key: "k", Tenant: "t", Source: "src", CorrelationID: "cor",
		Headers: []byte(`{"traceparent": "x"}`), CreatedAt: committed, CommittedAt: committed,
		Position: delivery.Position{LSN: 1<<32 | 10, Index: 7}, Emitted: true}}, claimed[0])
	require.Equal(t, &delivery.Delivery{ID: bare, SubscriptionID: lane, Queued: true, Event: &delivery.Event{
		ID: event, Type: "x", Payload: []byte("null"), Headers: []byte{}, CreatedAt: committed, CommittedAt: committed,
		Position: delivery.Position{LSN: 1<<32 | 11}}}, claimed[1])
}

// What another transaction holds is passed over, not waited for.
func TestClaimSkipsLockedRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lane := uuid.New()
	rows := f.add(lane, 3, -time.Minute)
	tx, err := f.connect().Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM outbox.deliveries WHERE id = $1 FOR UPDATE", rows[0])
	require.NoError(t, err)

	f.do("SET lock_timeout = '1ms'") // waiting would be an error
	require.ElementsMatch(t, rows[1:], ids(f.claim(want(lane, 3))))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, rows[:1], ids(f.claim(want(lane, 3))))
}

// Workers that claim at the same time share the rows: each goes to one of them.
func TestConcurrentClaimsShare(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const workers, rows = 4, 300
	lanes := []uuid.UUID{uuid.New(), uuid.New()}
	for _, lane := range lanes {
		f.add(lane, rows/2, -time.Minute)
	}
	var mu sync.Mutex
	claims := map[uuid.UUID]int{}
	note := func(got []*delivery.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range got {
			if claims[d.ID]++; claims[d.ID] > 1 {
				return fmt.Errorf("delivery %s was claimed twice", d.ID)
			}
		}
		return nil
	}
	errs := make(chan error, workers)
	for range workers {
		conn := f.connect()
		go func() {
			for {
				got, err := f.queue.Claim(t.Context(), conn, []queue.Want{want(lanes[0], 7), want(lanes[1], 7)}, 1<<30)
				if err == nil {
					err = note(got)
				}
				if err != nil || len(got) == 0 {
					errs <- err
					return
				}
			}
		}()
	}
	for range workers {
		require.NoError(t, <-errs)
	}
	// A worker may have found only locked rows and left early, but nothing is claimed twice.
	require.NoError(t, note(f.claim(want(lanes[0], rows), want(lanes[1], rows))))
	require.Len(t, claims, rows)
}

// Once another relay has taken the slot over, its predecessor claims nothing.
func TestStaleEpochClaimsNothing(t *testing.T) {
	t.Parallel()
	for name, takeOver := range map[string]string{
		"a successor":      "UPDATE outbox.checkpoint SET epoch = 2",
		"no checkpoint":    "DELETE FROM outbox.checkpoint",
		"only another one": "UPDATE outbox.checkpoint SET slot_name = 'other'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			lane := uuid.New()
			f.add(lane, 3, -time.Minute)
			f.do(takeOver)
			claimed, err := f.queue.Claim(t.Context(), f.conn, []queue.Want{want(lane, 3)}, 1<<30)
			require.ErrorIs(t, err, queue.ErrEpoch)
			require.Empty(t, claimed)
			require.Equal(t, 3, f.count("outbox.deliveries WHERE lease_owner IS NULL AND next_attempt_at < now()"))
		})
	}
}

// What waits for a subscription that was deleted becomes a dead letter, also what was under a lease that nobody
// gave back; what is under way stays, because its outcome will be recorded.
func TestCancel(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var kept uuid.UUID
	require.NoError(t, f.conn.QueryRow(t.Context(), "INSERT INTO outbox.subscriptions (name, url) VALUES ('kept', 'http://localhost') RETURNING id").Scan(&kept))
	gone := uuid.New()
	f.add(kept, 2, time.Hour)
	rows := f.add(gone, 4, time.Hour)
	f.do("UPDATE outbox.deliveries SET lease_owner = 'relay/s/1' WHERE id = $1", rows[0])
	f.do("UPDATE outbox.deliveries SET lease_owner = 'relay/s/1', next_attempt_at = now() - interval '1s' WHERE id = $1", rows[3])
	f.do("UPDATE outbox.deliveries SET attempts = 2, last_status = 500, last_error = 'status 500', last_attempt_at = now() WHERE id = $1", rows[1])

	for subscription, n := range map[uuid.UUID]int64{kept: 0, gone: 3} {
		cancelled, err := f.queue.Cancel(t.Context(), f.conn, subscription)
		require.NoError(t, err)
		require.Equal(t, n, cancelled)
	}
	require.Equal(t, 2, f.count("outbox.deliveries WHERE subscription_id = $1", kept))
	require.Equal(t, 1, f.count("outbox.deliveries WHERE id = $1", rows[0]))
	require.Equal(t, 1, f.count(`outbox.dead_letters WHERE id = $1 AND attempts = 2 AND last_status = 500
		AND last_error = 'the subscription was deleted; before that: status 500' AND last_attempt_at IS NOT NULL`, rows[1]))
	require.Equal(t, 1, f.count("outbox.dead_letters WHERE id = $1 AND attempts = 0 AND last_error = 'the subscription was deleted'", rows[2]))
	require.Equal(t, 3, f.count("outbox.deliveries"))
}

// What waits for a subscription that nobody sees is left alone as long as its INSERT may be on its way: the routing view has
// a revision that nobody sees either.
func TestCancelOfWhatIsNotSeenYet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	cancels := func(subscription uuid.UUID, n int64) {
		t.Helper()
		cancelled, err := f.queue.Cancel(t.Context(), f.conn, subscription)
		require.NoError(t, err)
		require.Equal(t, n, cancelled)
	}
	insert := func() (id uuid.UUID, commit func()) {
		conn, revision := f.connect(), 0
		tx, err := conn.Begin(t.Context())
		require.NoError(t, err)
		require.NoError(t, tx.QueryRow(t.Context(), "INSERT INTO outbox.subscriptions (name, url) VALUES ('new', 'http://localhost') RETURNING id, revision").Scan(&id, &revision))
		f.do("INSERT INTO outbox.routing VALUES ($1, '', '{}', '{}', 'none', true, $2)", id, revision)
		f.add(id, 2, -time.Minute)
		return id, func() { require.NoError(t, tx.Commit(t.Context())) }
	}
	id, commit := insert()
	cancels(id, 0)
	commit()
	cancels(id, 0)
	f.do("DELETE FROM outbox.subscriptions WHERE id = $1", id)
	cancels(id, 2) // before the routing view has lost it

	id, commit = insert()
	commit()
	f.do("DELETE FROM outbox.subscriptions WHERE id = $1", id)
	f.do("UPDATE outbox.subscription_revisions SET subscription_id = gen_random_uuid() WHERE subscription_id = $1", id)
	cancels(id, 0) // it left no revision
	f.do("DELETE FROM outbox.routing WHERE subscription_id = $1", id)
	cancels(id, 2)
}

// Errors say what was being done.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	conn := f.connect()
	require.NoError(t, conn.Close(t.Context()))
	subscription := uuid.New()
	_, _, err := f.queue.Lanes(t.Context(), conn)
	require.ErrorContains(t, err, "look for due deliveries: ")
	_, err = f.queue.Claim(t.Context(), conn, []queue.Want{want(subscription, 1)}, 1<<30)
	require.ErrorContains(t, err, "claim deliveries: ")
	_, err = f.queue.Cancel(t.Context(), conn, subscription)
	require.ErrorContains(t, err, fmt.Sprintf("cancel deliveries of subscription %s: ", subscription))
}

// Whoever claims waits for a cancellation: a large one comes in pieces.
func TestCancelIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	gone := uuid.New()
	f.do(`INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at,
			commit_lsn, commit_index, next_attempt_at)
		SELECT gen_random_uuid(), $1, gen_random_uuid(), 'test', '{}', '', false, now(), now(), '0/10', i, now()
		FROM generate_series(1, $2::int) AS i`, gone, queue.CancelAtATime+1)
	for _, want := range []int64{queue.CancelAtATime, 1, 0} {
		n, err := f.queue.Cancel(t.Context(), f.conn, gone)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	require.Equal(t, queue.CancelAtATime+1, f.count("outbox.dead_letters WHERE last_error = 'the subscription was deleted'"))
}
