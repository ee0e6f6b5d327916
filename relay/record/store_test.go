package record_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/test/harness"
)

// ledger is a database with a checkpoint, and a window and a store over it.
type ledger struct {
	*fixture
	db    *pgxpool.Pool
	store *record.Store
	cuts  atomic.Int64 // connections to be cut before the reply to COMMIT
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	return newLedgerAt(t, harness.Database(t))
}

// newLedgerAt is newLedger in a database that has the schema.
func newLedgerAt(t *testing.T, url string) *ledger {
	t.Helper()
	l := &ledger{fixture: newFixture(t), db: harness.Connect(t, url)}
	l.exec(`INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline) VALUES ('s', '0/1', '0/1', now(), 'x', 1)`)
	l.store = l.open(url, 0)
	return l
}

// open returns a store of an epoch.
func (l *ledger) open(url string, epoch int) *record.Store {
	s := record.NewStore(record.Options{Slot: "s", Owner: record.Owner("s", epoch), Epoch: epoch, Log: zerolog.New(zerolog.NewTestWriter(l.t))},
		func(ctx context.Context) (*pgx.Conn, error) {
			cfg, err := pgx.ParseConfig(url)
			if err != nil {
				return nil, err
			}
			dial := cfg.DialFunc
			cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				return &forgetful{Conn: c, cuts: &l.cuts}, err
			}
			return pgx.ConnectConfig(ctx, cfg)
		})
	l.t.Cleanup(s.Close)
	return s
}

// forgetful is a connection that may break when COMMIT has been executed and before its reply is read.
type forgetful struct {
	net.Conn
	cuts *atomic.Int64
}

func (f *forgetful) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if bytes.Contains(b[:n], []byte("COMMIT\x00")) && f.cuts.Add(-1) >= 0 {
		_ = f.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func (l *ledger) exec(sql string, args ...any) {
	l.t.Helper()
	_, err := l.db.Exec(l.t.Context(), sql, args...)
	require.NoError(l.t, err)
}

// count counts the rows of a table.
func (l *ledger) count(table string) (n int) {
	l.t.Helper()
	require.NoError(l.t, l.db.QueryRow(l.t.Context(), "SELECT count(*) FROM outbox."+table).Scan(&n))
	return n
}

// real is an event as it comes from the stream.
func (l *ledger) real(p delivery.Position, n int) []*delivery.Delivery {
	return l.enter(&delivery.Event{ID: uuid.New(), Type: "x", Payload: []byte("{}"), CreatedAt: noon, CommittedAt: noon, Position: p}, n)
}

// record makes durable what can be, and fails when that takes long: a batch that cannot be written would be
// tried for ever.
func (l *ledger) record() error {
	ctx, cancel := context.WithTimeout(l.t.Context(), 5*time.Second)
	defer cancel()
	b := l.Cut(false)
	err := l.store.Record(ctx, b)
	if err == nil {
		l.Recorded(b)
	}
	return err
}

// Every field that a batch carries arrives where it belongs.
func TestStoreWritesWhatTheBatchSays(t *testing.T) {
	l := newLedger(t)
	e := &delivery.Event{ID: uuid.New(), Type: "patient.created", Payload: []byte(`{"n": 1.10}`), Key: "k", Tenant: "t", Source: "s", CorrelationID: "c",
		Headers: []byte(`{"a": "b"}`), CreatedAt: noon, CommittedAt: noon.Add(time.Second), Position: at(0x100, 1), Emitted: true}
	d := l.enter(e, 4)
	rule := delivery.Rule{SubscriptionID: uuid.New(), Revision: 9, Tenant: "t", EventTypes: []string{"a.*"}, Filters: []byte(`{"x": 1}`), Active: true}
	l.Change(at(0x100, 2), &delivery.Change{Rule: rule})
	l.end(0x100)
	l.finish(delivered, d[0])
	l.finish(failed, d[1])
	d[2].Attempts, d[2].Round = 6, 1
	l.finish(failed, d[2])
	l.Decline(d[3])
	require.NoError(t, l.record())

	require.Equal(t, 3, l.count("attempts"))
	require.Equal(t, 2, l.count("deliveries"))
	require.Equal(t, 1, l.count("dead_letters"))
	require.Equal(t, 3, l.count("subscription_totals"))
	for sql, args := range map[string][]any{
		`SELECT lsn = '0/130' AND index = 0 AND confirmed_lsn = '0/130' AND batch = 1 FROM outbox.checkpoint`:                                                          nil,
		`SELECT status = 200 AND attempt = 1 AND duration_us = 30000 AND revision = 5 AND error IS NULL AND event_id = $2 FROM outbox.attempts WHERE delivery_id = $1`: {d[0].ID, e.ID},
		`SELECT status = 500 AND error = 'HTTP 500' FROM outbox.attempts WHERE delivery_id = $1`:                                                                       {d[1].ID},
		`SELECT attempts = 1 AND round = 1 AND last_status = 500 AND lease_owner IS NULL AND next_attempt_at >= $2 FROM outbox.deliveries WHERE id = $1`:               {d[1].ID, noon.Add(time.Minute)},
		`SELECT attempts = 7 AND last_error = 'HTTP 500' AND payload = '{"n": 1.10}' FROM outbox.dead_letters WHERE id = $1`:                                           {d[2].ID},
		`SELECT attempts = 0 AND next_attempt_at = $2 AND last_attempt_at IS NULL FROM outbox.deliveries WHERE id = $1`:                                                {d[3].ID, noon},
		`SELECT (type, payload, key, tenant, source, correlation_id, headers, emitted, created_at, committed_at, commit_lsn, commit_index)
			= ('patient.created', '{"n": 1.10}', 'k', 't', 's', 'c', '{"a": "b"}', true, $2, $3, '0/100', 1) FROM outbox.deliveries WHERE id = $1`: {d[3].ID, noon, noon.Add(time.Second)},
		`SELECT (type, payload::text, key, tenant, source, correlation_id, headers, created_at)
			= ('patient.created', '{"n": 1.10}', 'k', 't', 's', 'c', '{"a": "b"}'::jsonb, $2) FROM outbox.emitted_events WHERE id = $1`: {e.ID, noon},
		`SELECT (tenant, event_types, filters, is_active, revision) = ('t', '{a.*}'::text[], '{"x": 1}'::jsonb, true, 9) FROM outbox.routing WHERE subscription_id = $1`: {rule.SubscriptionID},
	} {
		var right bool
		require.NoError(t, l.db.QueryRow(t.Context(), sql, args...).Scan(&right), sql)
		require.True(t, right, sql)
	}
}

// Once another relay has taken over, nothing can be recorded: not a row, not the checkpoint.
func TestStaleEpochRecordsNothing(t *testing.T) {
	l := newLedger(t)
	conn, err := l.db.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	c, _, err := record.TakeOver(t.Context(), conn.Conn(), "s", record.Relay{}, 1)
	require.NoError(t, err)
	require.Equal(t, 1, c.Epoch)
	l.finish(failed, l.real(at(0x100, 1), 1)...)
	require.ErrorIs(t, l.record(), record.ErrEpoch)
	require.Zero(t, l.count("attempts")+l.count("deliveries"))
	after, err := record.Read(t.Context(), conn.Conn(), "s")
	require.NoError(t, err)
	require.Equal(t, c, after)
}

// A relay that froze in the midst of recording, and holds the checkpoint's row, does not keep its successor from
// taking over.
func TestFrozenOwnerIsNotWaitedFor(t *testing.T) {
	l := newLedger(t)
	frozen, err := l.db.Acquire(t.Context())
	require.NoError(t, err)
	defer frozen.Release()
	_, err = frozen.Exec(t.Context(), "BEGIN; UPDATE outbox.checkpoint SET batch = batch + 1")
	require.NoError(t, err)
	conn, err := l.db.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	c, _, err := record.TakeOver(t.Context(), conn.Conn(), "s", record.Relay{}, 1)
	require.NoError(t, err)
	require.Equal(t, 1, c.Epoch)
	require.Zero(t, c.Batch)
	_, err = frozen.Exec(t.Context(), "COMMIT")
	require.ErrorContains(t, err, "57P01", "its session has ended")
}

// Somebody else's transaction is not ended but named; rows that it has locked are left to the end of their leases.
func TestTakeOverBesideOthersLocks(t *testing.T) {
	l := newLedger(t)
	l.finish(failed, l.real(at(0x100, 1), 1)...)
	require.NoError(t, l.record())
	_, err := l.db.Exec(t.Context(), "UPDATE outbox.deliveries SET lease_owner = 'relay/s/0', next_attempt_at = now() + interval '1 hour'")
	require.NoError(t, err)
	operator, err := l.db.Acquire(t.Context())
	require.NoError(t, err)
	defer operator.Release()
	conn, err := l.db.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	take := func() error {
		_, _, err := record.TakeOver(t.Context(), conn.Conn(), "s", record.Relay{}, 1)
		return err
	}

	_, err = operator.Exec(t.Context(), "SET application_name = 'by hand'; BEGIN; SELECT FROM outbox.checkpoint FOR UPDATE")
	require.NoError(t, err)
	require.ErrorContains(t, take(), fmt.Sprintf("process %d of Postgres, application \"by hand\") has locked its checkpoint: end it", operator.Conn().PgConn().PID()))
	_, err = operator.Exec(t.Context(), "ROLLBACK; BEGIN; SELECT FROM outbox.deliveries FOR UPDATE")
	require.NoError(t, err)
	require.NoError(t, take())
	require.Equal(t, 1, l.count("deliveries WHERE lease_owner = 'relay/s/0'"))
	_, err = operator.Exec(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	require.NoError(t, take())
	require.Equal(t, 1, l.count("deliveries WHERE lease_owner IS NULL"))
}

// A COMMIT whose reply was lost has happened all the same: it is looked up, and not done twice.
func TestLostReplyToCommit(t *testing.T) {
	l := newLedger(t)
	for i := range uint64(3) {
		l.finish(delivered, l.real(at(0x100, i+1), 1)...)
		l.Decline(l.real(at(0x200, i+1), 1)[0])
		l.cuts.Store(1)
		require.NoError(t, l.record())
		require.Zero(t, l.cuts.Load(), "cut once, and not committed again")
		require.EqualValues(t, i+1, l.count("attempts"))
		require.EqualValues(t, i+1, l.count("deliveries"))
	}
}

// A row that stands in the way, left by hand or by outbox.redeliver, does not stop the relay.
func TestRowInTheWay(t *testing.T) {
	l := newLedger(t)
	d := l.real(at(0x100, 1), 1)
	l.Decline(d[0])
	require.NoError(t, l.record())
	again := *d[0]
	again.Queued = false
	l.Event(again.Event, []*delivery.Delivery{&again})
	l.finish(failed, &again)
	require.NoError(t, l.record())
	require.Equal(t, 1, l.count("deliveries"))
	require.Equal(t, 1, l.count("attempts"))
}

// Applications may repeat an event's id, where the first row is gone or in a message of their own. All of them
// have the same delivery ids, and one row each is enough; more must not stop the relay for good.
func TestRepeatedIDsInOneBatch(t *testing.T) {
	l := newLedger(t)
	e := delivery.Event{ID: uuid.New(), Type: "x", Payload: []byte(`{}`), CreatedAt: noon, CommittedAt: noon, Emitted: true}
	waiting, dead := uuid.New(), uuid.New()
	for i := range uint64(3) {
		again := e
		again.Position = at(0x100, i+1)
		again.Payload = []byte{'0' + byte(i)}
		all := []*delivery.Delivery{{ID: delivery.ID(e.ID, waiting), SubscriptionID: waiting, Event: &again},
			{ID: delivery.ID(e.ID, dead), SubscriptionID: dead, Event: &again, Round: 1}}
		l.Event(&again, all)
		l.finish(failed, all...)
	}
	require.NoError(t, l.record())
	require.Equal(t, 6, l.count("attempts"))
	for _, table := range []string{"deliveries", "dead_letters", "emitted_events"} {
		require.Equal(t, 1, l.count(table), table)
		var payload string
		require.NoError(t, l.db.QueryRow(t.Context(), "SELECT payload::text FROM outbox."+table).Scan(&payload))
		require.Equal(t, "2", payload, "the last of %s", table)
	}
}

// A Postgres that stays away is tried again until it is told to stop.
func TestRecordEndsWithItsContext(t *testing.T) {
	tries := 0
	s := record.NewStore(record.Options{Slot: "s", Log: zerolog.Nop()}, func(context.Context) (*pgx.Conn, error) {
		tries++
		return nil, errors.New("connection refused")
	})
	stop := errors.New("the relay stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(200*time.Millisecond, func() { cancel(stop) })
	require.ErrorIs(t, s.Record(ctx, &record.Batch{Position: at(1, 0)}), stop)
	require.Greater(t, tries, 1)
}
