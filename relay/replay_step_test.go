package relay_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/queue"
	"github.com/walhook/walhook/test/harness"
)

// replays is a database without a relay, whose checkpoint is ahead of everything, and a replayer.
type replays struct {
	t    *testing.T
	url  string
	db   *pgxpool.Pool
	conn *pgx.Conn
	r    *relay.Replayer
}

func newReplays(t *testing.T, rate int) *replays {
	t.Helper()
	return replaysOf(t, harness.Database(t), rate)
}

func replaysOf(t *testing.T, url string, rate int) *replays {
	t.Helper()
	p := &replays{t: t, url: url, db: harness.Connect(t, url), conn: session(t, url), r: relay.NewReplayer("s", 1, rate)}
	exec(t, p.db, `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, recorded_xid, epoch, system_identifier, timeline)
		VALUES ('s', 'FFFFFFFF/0', 'FFFFFFFF/0', 'tomorrow', '9223372036854775807', 1, 'system', 1)`)
	return p
}

// step takes a step and returns for how long the next one is to wait.
func (p *replays) step() time.Duration {
	p.t.Helper()
	began := time.Now()
	again, err := p.r.Step(p.t.Context(), p.conn)
	require.NoError(p.t, err)
	return again.Sub(began)
}

// finish takes steps until nothing is left to do, and returns how many there were.
func (p *replays) finish() int {
	p.t.Helper()
	for n := 1; ; n++ {
		p.step()
		if value[bool](p.t, p.db, "SELECT NOT EXISTS (SELECT FROM outbox.replays WHERE state IN ('waiting', 'running'))") {
			return n
		}
		require.Less(p.t, n, 100, "it goes on and on")
	}
}

// state shows a replay, or the last one.
func (p *replays) state(where string, args ...any) string {
	p.t.Helper()
	return value[string](p.t, p.db, `SELECT concat_ws(' ', state, matched, queued, error) FROM outbox.replays WHERE `+where+` ORDER BY number DESC LIMIT 1`, args...)
}

// request asks for a replay of the last hour.
func (p *replays) request(subscription uuid.UUID) uuid.UUID {
	p.t.Helper()
	return value[uuid.UUID](p.t, p.db, "SELECT outbox.replay($1, now() - interval '1 hour')", subscription)
}

const rowsOf = "SELECT count(*) FROM outbox.deliveries WHERE subscription_id = $1"

// Only so many a second are queued: each step waits for what it did, whatever comes in between.
func TestReplayKeepsItsPace(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 100)
	id := subscribe(t, p.db, "http://a", "filters", `'{"n": 1}'`)
	exec(t, p.db, `SELECT outbox.publish('a', '{"n": 1}'), outbox.publish('a', '{"n": 2}') FROM generate_series(1, 150)`)
	p.request(id)
	claimer := session(t, p.url)
	run(t, claimer, "LISTEN walhook")
	require.GreaterOrEqual(t, p.step(), time.Second)
	waiting, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	told, err := claimer.WaitForNotification(waiting)
	require.NoError(t, err)
	require.Equal(t, "queue", told.Payload)
	require.Equal(t, "running 100 100", p.state("true"))
	require.GreaterOrEqual(t, p.step(), time.Second/2)
	require.Equal(t, "done 150 150", p.state("finished_at IS NOT NULL"))
	require.GreaterOrEqual(t, p.step(), time.Hour, "there is nothing to do")
	require.Equal(t, 150, value[int](t, p.db, rowsOf, id))
}

// One that cannot go on, because what it queued still waits, leaves the others their turns.
func TestReplaysTakeTurns(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 1000)
	full, other := subscribe(t, p.db, "http://a", "is_active", "false"), subscribe(t, p.db, "http://b")
	exec(t, p.db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 1200)")
	p.request(full)
	p.request(other)
	p.step()
	p.step()
	require.Equal(t, 500, value[int](t, p.db, rowsOf, full))
	require.Equal(t, 500, value[int](t, p.db, rowsOf, other))
	for range 5 {
		p.step()
	}
	require.Equal(t, 1000, value[int](t, p.db, rowsOf, full), "no more than that waits")
	require.Equal(t, 1000, value[int](t, p.db, rowsOf, other))
	exec(t, p.db, "DELETE FROM outbox.deliveries WHERE subscription_id = $1", other)
	p.step()
	require.Equal(t, "done 1200 1200", p.state("subscription_id = $1", other))
	pause := p.step()
	require.Greater(t, pause, 400*time.Millisecond)
	require.Less(t, pause, time.Minute, "the other one is looked at again")
	require.Equal(t, "running 1000 1000", p.state("subscription_id = $1", full))
}

// The replays of one subscription follow each other, whatever room there is.
func TestReplaysOfOneSubscriptionFollowEachOther(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 10)
	id := subscribe(t, p.db, "http://a", "ordering", "'strict'")
	exec(t, p.db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 15)")
	first, second := p.request(id), p.request(id)
	p.step()
	p.step()
	require.Equal(t, "done 15 15", p.state("id = $1", first))
	require.Equal(t, "waiting 0 0", p.state("id = $1", second))
	require.Equal(t, 1, value[int](t, p.db, "SELECT count(*) FROM outbox.queue WHERE state = 'waiting'"))
	require.Equal(t, 14, value[int](t, p.db, "SELECT count(*) FROM outbox.queue WHERE state = 'held'"), "in their order")
	exec(t, p.db, "DELETE FROM outbox.deliveries WHERE event_id = (SELECT min(id::text)::uuid FROM outbox.events)") // delivered
	p.finish()
	require.Equal(t, "done 15 1", p.state("id = $1", second), "the others still wait")
	require.Equal(t, 1, value[int](t, p.db, "SELECT rank FROM (SELECT event_id, rank() OVER (ORDER BY commit_index DESC) FROM outbox.deliveries) d WHERE event_id = (SELECT min(id::text)::uuid FROM outbox.events)"),
		"what is asked for later comes later")
}

// Nothing is replayed before everything that was committed before the request is recorded.
func TestReplayWaitsForTheCheckpoint(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 100)
	exec(t, p.db, "UPDATE outbox.checkpoint SET lsn = pg_current_wal_insert_lsn()")
	id := subscribe(t, p.db, "http://a")
	backfilled := subscribe(t, p.db, "http://a", "backfill_from", "'2020-01-01'")
	exec(t, p.db, "SELECT outbox.publish('a', '{}')")
	p.request(id)
	require.Less(t, p.step(), time.Minute)
	require.Equal(t, 2, value[int](t, p.db, "SELECT count(*) FROM outbox.replays WHERE state = 'waiting'"))

	exec(t, p.db, "UPDATE outbox.checkpoint SET lsn = 'FFFFFFFF/0', index = 1")
	p.step()
	p.step()
	require.Equal(t, "done 1 1", p.state("subscription_id = $1", id))
	require.Equal(t, "waiting 0 0", p.state("backfill"), "the checkpoint does not have the subscription yet")
	exec(t, p.db, "INSERT INTO outbox.routing (subscription_id, tenant, event_types, filters, ordering, is_active, revision) VALUES ($1, '', '{}', '{}', 'none', true, 1)", backfilled)
	p.step()
	require.Equal(t, "waiting 0 0", p.state("backfill"), "it stands within the subscription's transaction")
	exec(t, p.db, "UPDATE outbox.checkpoint SET index = 0")
	p.finish()
	require.Equal(t, "done 1 1", p.state("backfill AND until = (SELECT recorded_through FROM outbox.checkpoint)"))
}

// What is committed after the request and lies in its range may be under way: it waits until the log tells, and goes on
// from there.
func TestReplayWaitsForTheStream(t *testing.T) {
	t.Parallel()
	_, url, _ := ownServer(t, nil) // other transactions of the server count
	p := replaysOf(t, url, 100)
	exec(t, p.db, "UPDATE outbox.checkpoint SET recorded_xid = '3'")
	id := subscribe(t, p.db, "http://a")
	exec(t, p.db, "SELECT outbox.publish('a', '{}')")
	tx, err := p.db.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = tx.Exec(t.Context(), "SELECT outbox.publish('a', '{}')")
	require.NoError(t, err)
	p.request(id)
	require.NoError(t, tx.Commit(t.Context()))
	exec(t, p.db, "SELECT outbox.publish('a', '{}')") // later than what is asked for

	require.Less(t, p.step(), time.Minute)
	require.Equal(t, "running 1 1", p.state("true"), "the first one was committed before")
	require.Greater(t, p.step(), 100*time.Millisecond, "it does not spin")
	require.Equal(t, "running 1 1", p.state("true"))
	exec(t, p.db, "UPDATE outbox.checkpoint SET recorded_xid = pg_snapshot_xmin(pg_current_snapshot())")
	p.finish()
	require.Equal(t, "done 2 2", p.state("true"))
}

// A relay whose epoch is over queues nothing.
func TestReplayNeedsItsEpoch(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 100)
	id := subscribe(t, p.db, "http://a")
	exec(t, p.db, "SELECT outbox.publish('a', '{}')")
	p.request(id)
	exec(t, p.db, "UPDATE outbox.checkpoint SET epoch = 2")
	_, err := p.r.Step(t.Context(), p.conn)
	require.ErrorIs(t, err, queue.ErrEpoch)

	// It also ends while a step is under way: the step waits for the taking over.
	exec(t, p.db, "UPDATE outbox.checkpoint SET epoch = 1")
	over := session(t, p.url)
	run(t, over, "BEGIN", "UPDATE outbox.checkpoint SET epoch = 2")
	failed := make(chan error, 1)
	go func() {
		_, err := p.r.Step(t.Context(), p.conn)
		failed <- err
	}()
	harness.Eventually(t, soon, "the step waits", func() bool {
		return value[bool](t, p.db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')")
	})
	run(t, over, "COMMIT")
	require.ErrorIs(t, <-failed, queue.ErrEpoch)
	require.Equal(t, "waiting 0 0", p.state("true"))
	require.Zero(t, value[int](t, p.db, rowsOf, id))
}

// What cannot be replayed says why, and what is cancelled stops.
func TestReplayFails(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 10)
	id := subscribe(t, p.db, "http://a")
	exec(t, p.db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 30)")
	p.request(id)
	p.step()
	exec(t, p.db, "SELECT outbox.cancel_replay(id) FROM outbox.replays")
	require.GreaterOrEqual(t, p.step(), time.Hour)
	require.Equal(t, "failed 10 10 cancelled", p.state("true"))

	exec(t, p.db, `UPDATE outbox.subscriptions SET filters = '{"amount": {"lessthan": 3}}'`)
	p.request(id)
	p.finish()
	require.Contains(t, p.state("finished_at IS NOT NULL"), "failed 0 0 filter \"amount\"")

	exec(t, p.db, "UPDATE outbox.subscriptions SET filters = '{}'")
	p.request(id)
	p.step()
	exec(t, p.db, "DELETE FROM outbox.subscriptions")
	p.finish()
	require.Equal(t, "failed 10 0 the subscription was deleted", p.state("finished_at IS NOT NULL"), "ten waited already")

	// An error that would come again at every step.
	id = subscribe(t, p.db, "http://a")
	exec(t, p.db, "ALTER TABLE outbox.deliveries ADD CONSTRAINT none CHECK (round > 0) NOT VALID")
	p.request(id)
	p.step()
	require.Contains(t, p.state("true"), "failed 0 0 queue replayed deliveries: ")
}

// The range is that of created_at, wherever the ids put an event: those that are no UUIDv7 have no order of time.
func TestReplayRange(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 1000)
	exec(t, p.db, "SELECT outbox.create_partitions()")
	id := subscribe(t, p.db, "http://a", "tenant", "'t'", "event_types", "'{a.*}'")
	publish := func(id, kind, tenant, at string) {
		t.Helper()
		exec(t, p.db, "INSERT INTO outbox.events (id, type, tenant, created_at) VALUES ("+id+", $1, $2, $3::text::timestamptz)", kind, tenant, at)
	}
	publish("outbox.uuid_floor('2024-01-01 11:59')", "a.before", "t", "2024-01-01 11:59:59.999999 UTC")
	publish("outbox.uuid_floor('2024-01-01 12:00')", "a.first", "t", "2024-01-01 12:00 UTC")
	publish("outbox.uuid_floor('2024-01-01 18:00')", "a.middle", "t", "2024-01-01 18:00 UTC")
	publish("outbox.uuid_floor('2024-01-01 18:01')", "b.other", "t", "2024-01-01 18:00 UTC")
	publish("outbox.uuid_floor('2024-01-01 18:02')", "a.tenant", "other", "2024-01-01 18:00 UTC")
	publish("outbox.uuid_floor('2024-01-02 12:00')", "a.after", "t", "2024-01-02 12:00 UTC")
	for _, edge := range []string{"'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "gen_random_uuid()", "outbox.uuid_floor('2023-12-01')"} {
		publish(edge, "a.elsewhere", "t", "2024-01-01 18:00 UTC")
	}
	exec(t, p.db, `INSERT INTO outbox.emitted_events (id, type, tenant, created_at, only_for) VALUES
		(outbox.uuid_floor('2024-01-01 12:30'), 'a.emitted', 't', '2024-01-01 12:30 UTC', NULL),
		('0fffffff-ffff-4fff-8fff-ffffffffffff', 'a.emitted', 't', '2024-01-01 12:30 UTC', NULL),
		(outbox.uuid_floor('2024-01-01 12:31'), 'a.test', 't', '2024-01-01 12:30 UTC', gen_random_uuid())`)
	exec(t, p.db, "SELECT outbox.replay($1, '2024-01-01 12:00 UTC', '2024-01-02 12:00 UTC')", id)
	p.finish()
	require.Equal(t, "a.elsewhere false 4, a.emitted true 2, a.first false 1, a.middle false 1", value[string](t, p.db,
		"SELECT string_agg(concat_ws(' ', type, emitted::text, n), ', ' ORDER BY type) FROM (SELECT type, emitted, count(*) AS n FROM outbox.deliveries GROUP BY 1, 2) d"))
	require.Equal(t, "done 8 8", p.state("true"))
	require.Zero(t, value[int](t, p.db, "SELECT count(*) FROM outbox.deliveries WHERE id <> outbox.delivery_id(event_id, subscription_id)"))
}

// Pages have a bound in bytes too: of what is stored, and of the text that it makes.
func TestReplayOfLargeEvents(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 1000)
	id := subscribe(t, p.db, "http://a")
	exec(t, p.db, "SELECT outbox.publish('a', jsonb_build_array(round(9e131071::numeric, 16383))) FROM generate_series(1, 300)") // 147 KB of 16 bytes
	exec(t, p.db, `SELECT outbox.publish('b', (SELECT jsonb_agg(gen_random_uuid()) FROM generate_series(1, 30000 + n))) FROM generate_series(1, 10) AS n`)
	p.request(id)
	require.Greater(t, p.finish(), 4)
	require.Equal(t, "done 310 310", p.state("true"))
	require.True(t, value[bool](t, p.db, "SELECT bool_and(d.payload = e.payload::text) FROM outbox.deliveries d JOIN outbox.events e ON e.id = d.event_id"))
}

// What the log knows of an event goes on: the time of its commit, from anybody's attempts, and the number of the next
// attempt, from the delivery's own.
func TestReplayKnowsTheLog(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 1000)
	id := subscribe(t, p.db, "http://a")
	exec(t, p.db, `INSERT INTO outbox.events (id, type, created_at) SELECT outbox.uuid_floor(now() - n * interval '1 minute'), 'e' || n, now() - n * interval '1 minute'
		FROM generate_series(1, 5) AS n`)
	const attempt = `INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status)
		SELECT now(), created_at + interval '1 s', outbox.delivery_id(id, $2), id, $2, 1, 1, 1, $3, 200 FROM outbox.events WHERE type = $1`
	exec(t, p.db, attempt, "e1", id, 1)
	exec(t, p.db, attempt, "e1", id, 2)
	exec(t, p.db, attempt, "e2", uuid.New(), 7)
	exec(t, p.db, `INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index,
			attempts, next_attempt_at, last_error)
		SELECT outbox.delivery_id(id, $1), $1, id, type, '{}', '', false, created_at, created_at, '0/6', 1, 1, 'tomorrow', 'waits' FROM outbox.events WHERE type = 'e4'`, id)
	const dead = `INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index,
			attempts, last_status, last_error)
		SELECT outbox.delivery_id(id, $2), $2, id, type, '{}', '', false, created_at, created_at + interval '2 s', '0/5', 1, 4, 500, 'was dead'
		FROM outbox.events WHERE type = $1`
	exec(t, p.db, dead, "e3", id)
	exec(t, p.db, dead, "e4", id)
	p.request(id)
	p.finish()
	const shown = `SELECT concat_ws(' ', d.type, attempts, round, extract(epoch FROM committed_at - d.created_at)::int, d.next_attempt_at <= now(), last_status, last_error)
		FROM outbox.deliveries d JOIN outbox.events e ON e.id = d.event_id WHERE d.type = $1`
	for kind, want := range map[string]string{
		"e1": "e1 2 0 1 t",              // delivered before
		"e2": "e2 0 0 1 t",              // somebody else had it
		"e3": "e3 4 0 2 t 500 was dead", // dead
		"e4": "e4 1 0 0 f waits",        // waits, and goes on waiting
		"e5": "e5 0 0 0 t",              // nobody had it
	} {
		require.Equal(t, want, value[string](t, p.db, shown, kind))
	}
	require.Equal(t, "done 5 4", p.state("true"))
	require.Equal(t, "e4", value[string](t, p.db, "SELECT type FROM outbox.dead_letters"), "only what was queued is no longer dead")

	// A backfill takes only what the subscription never had.
	exec(t, p.db, "DELETE FROM outbox.deliveries WHERE type <> 'e4'")
	exec(t, p.db, "INSERT INTO outbox.routing (subscription_id, tenant, event_types, filters, ordering, is_active, revision) VALUES ($1, '', '{}', '{}', 'none', true, 1)", id)
	exec(t, p.db, "INSERT INTO outbox.replays (subscription_id, since, backfill) VALUES ($1, now() - interval '1 hour', true)", id)
	p.finish()
	require.Equal(t, "e2 e3 e4 e5", value[string](t, p.db, "SELECT string_agg(type, ' ' ORDER BY type) FROM outbox.deliveries"))
	require.Equal(t, "done 5 3", p.state("true"))
}

// A dead letter that somebody else takes away while it is about to be queued was redelivered by them.
func TestReplayOfADeadLetterThatGoes(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 100)
	id := subscribe(t, p.db, "http://a")
	exec(t, p.db, `INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index, attempts)
		VALUES (gen_random_uuid(), $1, outbox.uuidv7(), 'a', '{}', '', false, now() - interval '1 minute', now(), '0/5', 1, 4)`, id)
	exec(t, p.db, "UPDATE outbox.dead_letters SET id = outbox.delivery_id(event_id, subscription_id)")
	exec(t, p.db, "SELECT outbox.replay($1, now() - interval '1 hour', only_failed => true)", id)
	other := session(t, p.url)
	run(t, other, "BEGIN", "DELETE FROM outbox.dead_letters")
	stepped := make(chan error, 1)
	go func() {
		_, err := p.r.Step(t.Context(), p.conn)
		stepped <- err
	}()
	harness.Eventually(t, soon, "the step waits", func() bool {
		return value[bool](t, p.db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')")
	})
	run(t, other, "COMMIT")
	require.NoError(t, <-stepped)
	require.Equal(t, "done 1 0", p.state("true"))
	require.Zero(t, value[int](t, p.db, rowsOf, id))
}
