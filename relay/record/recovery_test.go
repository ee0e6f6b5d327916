package record_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
)

// gap is a ledger whose old slot is lost.
type gap struct {
	*ledger
	url string
}

func newGap(t *testing.T) *gap {
	l := newLedger(t)
	return &gap{l, l.db.Config().ConnString()}
}

// conn opens a session with the settings of the relay's own.
func (g *gap) conn(parameters ...string) *pgx.Conn {
	g.t.Helper()
	cfg, err := pgx.ParseConfig(g.url)
	require.NoError(g.t, err)
	cfg.RuntimeParams["enable_seqscan"], cfg.RuntimeParams["application_name"] = "off", "walhook"
	for i := 0; i < len(parameters); i += 2 {
		cfg.RuntimeParams[parameters[i]] = parameters[i+1]
	}
	conn, err := pgx.ConnectConfig(g.t.Context(), cfg)
	require.NoError(g.t, err)
	g.t.Cleanup(func() {
		_ = conn.Close(g.t.Context()) //nolint:usetesting // the context has ended: this closes at once
	})
	return conn
}

// slot makes a new slot, as the relay does, and says where it begins.
func (g *gap) slot() record.Restart {
	g.t.Helper()
	name := "s" + strings.ReplaceAll(uuid.NewString(), "-", "")
	session := g.conn("replication", "database")
	results, err := session.PgConn().Exec(g.t.Context(), "CREATE_REPLICATION_SLOT "+name+" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT").ReadAll()
	require.NoError(g.t, err)
	from, err := delivery.ParseLSN(string(results[0].Rows[0][1]))
	require.NoError(g.t, err)
	return record.Restart{Slot: "s", Snapshot: string(results[0].Rows[0][2]), From: from, System: "y", Timeline: 3, Catalog: "c",
		Code: "slot_missing", Reason: "it is gone", Relay: record.Relay{Version: "v", Host: "h", PID: 9}}
}

func (g *gap) begin() *record.Recovery {
	g.t.Helper()
	r, err := record.BeginRecovery(g.t.Context(), g.conn(), g.slot())
	require.NoError(g.t, err)
	g.t.Cleanup(r.Rollback)
	return r
}

// publish inserts an event in a transaction of its own.
func (g *gap) publish() (id uuid.UUID) {
	g.t.Helper()
	require.NoError(g.t, g.db.QueryRow(g.t.Context(), `SELECT outbox.publish('x', '{"n": 1.10}', 'k', 't', 's', 'c', '{"a": "b"}')`).Scan(&id))
	return id
}

// mark notes that everything until now is recorded.
func (g *gap) mark() {
	g.exec("UPDATE outbox.checkpoint SET lsn = pg_current_wal_insert_lsn(), index = 4, recorded_xid = pg_snapshot_xmin(pg_current_snapshot()), recorded_through = now() - interval '1 hour'")
}

// candidates reads all pages.
func (g *gap) candidates(r *record.Recovery, limit int) (all []*delivery.Event) {
	g.t.Helper()
	var after uuid.UUID
	for {
		page, err := r.Events(g.t.Context(), after, limit)
		require.NoError(g.t, err)
		if len(page) == 0 {
			return all
		}
		require.LessOrEqual(g.t, len(page), limit)
		for _, c := range page {
			all = append(all, c.Event)
		}
		after = page[len(page)-1].ID
	}
}

func ids(events []*delivery.Event) (all []uuid.UUID) {
	for _, e := range events {
		all = append(all, e.ID)
	}
	return all
}

// to makes a delivery of each event.
func to(subscription uuid.UUID, o delivery.Ordering, events ...*delivery.Event) (all []*delivery.Delivery) {
	for _, e := range events {
		all = append(all, &delivery.Delivery{ID: delivery.ID(e.ID, subscription), SubscriptionID: subscription, Event: e, Sequence: o.Sequence(e)})
	}
	return all
}

func (g *gap) right(sql string, args ...any) {
	g.t.Helper()
	var right bool
	require.NoError(g.t, g.db.QueryRow(g.t.Context(), sql, args...).Scan(&right), sql)
	require.True(g.t, right, sql)
}

func requireCode(t *testing.T, code string, err error) {
	t.Helper()
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg)
	require.Equal(t, code, pg.Code, err.Error())
}

// What committed after the mark and before the new slot's snapshot may lie in the gap: also of subtransactions and of
// transactions that began long before; neither what came before nor what is rolled back or comes after.
func TestRecoveryReadsTheGap(t *testing.T) {
	g := newGap(t)
	g.publish()
	old := g.conn()
	var long, nested uuid.UUID
	_, err := old.Exec(t.Context(), "BEGIN; SELECT pg_current_xact_id()")
	require.NoError(t, err)
	g.mark()
	first := g.publish()
	require.NoError(t, old.QueryRow(t.Context(), "SELECT outbox.publish('x', '{}')").Scan(&long))
	_, err = old.Exec(t.Context(), "SAVEPOINT a; SELECT outbox.publish('x', '{}'); ROLLBACK TO a; SAVEPOINT b")
	require.NoError(t, err)
	require.NoError(t, old.QueryRow(t.Context(), "SELECT outbox.publish('x', '{}')").Scan(&nested))
	_, err = old.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	g.exec("BEGIN; SELECT outbox.publish('x', '{}'); ROLLBACK")
	last := g.publish()

	restart := g.slot()
	after := g.publish()
	r, err := record.BeginRecovery(t.Context(), g.conn(), restart)
	require.NoError(t, err)
	defer r.Rollback()
	want := []uuid.UUID{first, long, nested, last}
	for _, limit := range []int{100, 1, 3} {
		require.Equal(t, want, ids(g.candidates(r, limit)), "pages of %d, without %s", limit, after)
	}
	e := g.candidates(r, 1)[0]
	require.Equal(t, delivery.Event{ID: first, Type: "x", Payload: []byte(`{"n": 1.10}`), Key: "k", Tenant: "t", Source: "s", CorrelationID: "c", Headers: []byte(`{"a": "b"}`),
		CreatedAt: e.CreatedAt, CommittedAt: e.CommittedAt, Position: e.Position}, *e)
	require.WithinDuration(t, time.Now(), e.CreatedAt, time.Minute)
	require.True(t, e.CreatedAt.Equal(e.CommittedAt), "nothing else is known")
}

// One transaction queues what has no outcome, and leaves everything as it must be to go on from the new slot.
func TestRecoveryIsOneTransaction(t *testing.T) {
	g := newGap(t)
	s := uuid.New()
	recorded := g.publish()
	g.mark()
	g.exec("UPDATE outbox.checkpoint SET batch = 7")
	g.exec("INSERT INTO outbox.subscriptions (id, name, url) VALUES ($1, 'n', 'http://h')", s)
	outcomes := map[string]uuid.UUID{}
	for _, what := range []string{"attempted", "waiting", "dead", "lost", "lost as well"} {
		outcomes[what] = g.publish()
	}
	g.exec(`INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt)
		VALUES (now(), now(), outbox.delivery_id($1, $2), $1, $2, 1, 0, 1, 1)`, outcomes["attempted"], s)
	for table, event := range map[string]uuid.UUID{"deliveries (next_attempt_at,": outcomes["waiting"], "dead_letters (died_at,": outcomes["dead"]} {
		g.exec(`INSERT INTO outbox.`+table+` id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index, attempts)
			VALUES (now(), outbox.delivery_id($1, $2), $2, $1, 'x', '{}', '', false, now(), now(), '0/2', 1, 1)`, event, s)
	}
	g.exec("INSERT INTO outbox.emitted_events (id, type, only_for) VALUES (gen_random_uuid(), 'x', NULL), (gen_random_uuid(), 'x', $1)", s)
	// The minute that a record transaction wrote, of one event with one delivery.
	g.exec("UPDATE outbox.events SET created_at = '2026-03-01 12:00:01Z' WHERE id = $1", recorded)
	g.exec("UPDATE outbox.events SET created_at = '2026-03-01 12:00:02Z' WHERE id = $1", outcomes["lost"])
	g.exec("UPDATE outbox.emitted_events SET created_at = '2026-03-01 12:00:03Z'")
	g.exec("INSERT INTO outbox.recorded VALUES ('2026-03-01 12:00Z', 1, 12345, 1), ('2026-03-01 11:59Z', 5, 5, 5)")

	restart := g.slot()
	before, err := record.Read(t.Context(), g.conn(), "s")
	require.NoError(t, err)
	r, err := record.BeginRecovery(t.Context(), g.conn(), restart)
	require.NoError(t, err)
	require.Equal(t, before, r.Checkpoint())
	events := g.candidates(r, 2)
	require.Len(t, events, 6, "one was written anew, as far as its row tells")
	all := to(s, delivery.OrderNone, events[1:]...)
	n, err := r.Queue(t.Context(), append(all, all...))
	require.NoError(t, err)
	require.Equal(t, 2, n, "each once")
	n, err = r.Queue(t.Context(), all)
	require.NoError(t, err)
	require.Zero(t, n, "each once")
	n, err = r.Queue(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, 1, g.count("deliveries"), "nothing is seen before the end")
	require.NoError(t, r.Commit(t.Context()))
	r.Rollback()

	require.Equal(t, 3, g.count("deliveries"))
	for _, event := range []uuid.UUID{outcomes["lost"], outcomes["lost as well"]} {
		g.right(`SELECT (type, payload, key, tenant, source, correlation_id, headers, emitted, attempts, round, sequence, batch, lease_owner, last_attempt_at)
				IS NOT DISTINCT FROM ('x', '{"n": 1.10}', 'k', 't', 's', 'c', '{"a": "b"}', false, 0, 0, NULL::text, NULL::uuid, NULL::text, NULL::timestamptz)
				AND next_attempt_at <= now() AND (commit_lsn, commit_index) > ($3, 4) AND commit_lsn < $4
			FROM outbox.deliveries WHERE id = outbox.delivery_id($1, $2)`, event, s, before.Position.LSN.String(), restart.From.String())
	}
	g.right(`SELECT (lsn, index, confirmed_lsn, epoch, batch, system_identifier, timeline, catalog) = ($1::text::pg_lsn, 0, $1::text::pg_lsn, 1, 0, 'y', 3, 'c')
			AND recorded_through BETWEEN now() - interval '1 minute' AND now() AND recorded_xid::text::bigint > $2 FROM outbox.checkpoint`, restart.From.String(), int64(before.RecordedXID))
	g.right("SELECT (version, host, pid) = ('v', 'h', 9) FROM outbox.epochs WHERE slot_name = 's' AND epoch = 1")
	g.right("SELECT array_agg(subscription_id) = $1 FROM outbox.routing", []uuid.UUID{s})
	g.right(`SELECT (slot_name, code, reason, from_lsn, to_lsn, events, deliveries) = ('s', 'slot_missing', 'it is gone', $1::text::pg_lsn, $2::text::pg_lsn, 6, 2)
		FROM outbox.recoveries`, before.Position.LSN.String(), restart.From.String())
	g.right(`SELECT (events, matched) = (3, 2) AND digest = (SELECT sum(('x' || right(id::text, 12))::bit(48)::bigint) FROM (
			SELECT id, created_at FROM outbox.events UNION ALL SELECT id, created_at FROM outbox.emitted_events WHERE only_for IS NULL) e
			WHERE created_at BETWEEN minute AND minute + interval '1 minute')
		FROM outbox.recorded WHERE minute = '2026-03-01 12:00Z'`)
	g.right("SELECT (events, digest, matched) = (5, 5, 5) FROM outbox.recorded WHERE minute = '2026-03-01 11:59Z'")
	g.right("SELECT sum(events) = 4 AND sum(matched) = 1 FROM outbox.recorded WHERE minute > now() - interval '10 minutes'")

	again, err := record.BeginRecovery(t.Context(), g.conn(), g.slot())
	require.NoError(t, err)
	defer again.Rollback()
	require.Empty(t, g.candidates(again, 10), "the gap is closed")
}

// Given up, it leaves nothing.
func TestRecoveryRolledBack(t *testing.T) {
	g := newGap(t)
	g.mark()
	g.publish()
	before, err := record.Read(t.Context(), g.conn(), "s")
	require.NoError(t, err)
	r := g.begin()
	n, err := r.Queue(t.Context(), to(uuid.New(), delivery.OrderNone, g.candidates(r, 10)...))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	r.Rollback()
	after, err := record.Read(t.Context(), g.conn(), "s")
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Zero(t, g.count("deliveries")+g.count("recoveries")+g.count("epochs")+g.count("recorded"))
	require.Error(t, r.Commit(t.Context()))
}

func TestRecoveryNeedsACheckpoint(t *testing.T) {
	g := newGap(t)
	g.exec("DELETE FROM outbox.checkpoint")
	_, err := record.BeginRecovery(t.Context(), g.conn(), g.slot())
	require.ErrorIs(t, err, record.ErrNoCheckpoint)
}

// A former owner that records after the snapshot was taken has outcomes that the recovery does not see.
func TestRecoveryBesideAFormerOwner(t *testing.T) {
	g := newGap(t)
	before := g.slot()
	g.finish(delivered, g.real(at(0x100, 1), 1)...)
	require.NoError(t, g.record())
	_, err := record.BeginRecovery(t.Context(), g.conn(), before)
	requireCode(t, "40001", err)

	restart, frozen := g.slot(), g.conn() // a slot is made only once every transaction under way has ended
	_, err = frozen.Exec(t.Context(), "BEGIN; UPDATE outbox.checkpoint SET batch = batch + 1")
	require.NoError(t, err)
	r, err := record.BeginRecovery(t.Context(), g.conn(), restart)
	require.NoError(t, err)
	defer r.Rollback()
	_, err = frozen.Exec(t.Context(), "COMMIT")
	require.ErrorContains(t, err, "57P01", "its session has ended")
	require.NoError(t, r.Commit(t.Context()))
	g.finish(delivered, g.real(at(0x100, 2), 1)...)
	require.ErrorIs(t, g.record(), record.ErrEpoch)
}

// Per sequence, what is recovered comes behind what waits and before what the new slot brings, also where the server's
// WAL lies behind the old checkpoint; only the first row is due.
func TestRecoveryKeepsOrder(t *testing.T) {
	for _, c := range []struct{ name, lsn string }{{"ahead", "0/200"}, {"behind", "FFFF/200"}} {
		t.Run(c.name, func(t *testing.T) {
			g := newGap(t)
			g.exec("UPDATE outbox.checkpoint SET lsn = $1::text::pg_lsn, index = 2, recorded_xid = pg_snapshot_xmin(pg_current_snapshot())", c.lsn)
			waits, fresh := uuid.New(), uuid.New()
			for i := range 3 {
				g.exec(`INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index, next_attempt_at, sequence)
					VALUES (gen_random_uuid(), $1, gen_random_uuid(), $3, '{}', '', false, now(), now(), $2::text::pg_lsn, $4::int, CASE $4::int WHEN 0 THEN now() + interval '1 hour' ELSE 'infinity' END, 'strict')`,
					waits, c.lsn, fmt.Sprint("old.", i), i)
			}
			var want []string
			for i := range 3 {
				want = append(want, fmt.Sprint("new.", i))
				g.exec("SELECT outbox.publish($1, '{}')", want[i])
			}
			restart := g.slot()
			r, err := record.BeginRecovery(t.Context(), g.conn(), restart)
			require.NoError(t, err)
			t.Cleanup(r.Rollback)
			for _, e := range g.candidates(r, 2) {
				for _, s := range []uuid.UUID{waits, fresh} {
					_, err := r.Queue(t.Context(), to(s, delivery.OrderStrict, e))
					require.NoError(t, err)
				}
			}
			require.NoError(t, r.Commit(t.Context()))
			const order = "SELECT array_agg(type ORDER BY commit_lsn, commit_index) = $2 AND max(commit_lsn) < $3::text::pg_lsn FROM outbox.deliveries WHERE subscription_id = $1"
			g.right(order, waits, append([]string{"old.0", "old.1", "old.2"}, want...), restart.From.String())
			g.right(order, fresh, want, restart.From.String())
			g.right("SELECT array_agg(type) = '{new.0}' FROM outbox.deliveries WHERE subscription_id = $1 AND next_attempt_at <= now()", fresh)
			g.right("SELECT count(*) = 5 FROM outbox.deliveries WHERE subscription_id = $1 AND next_attempt_at = 'infinity'", waits)
		})
	}
}
