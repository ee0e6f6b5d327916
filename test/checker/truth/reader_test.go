package truth_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/cmd/localpg"
	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/truth"
	"github.com/walhook/walhook/test/harness"
)

// within bounds what should take well under a second.
const within = time.Minute

// fixture is a database with the schema, a truth slot that is older, and its reader.
type fixture struct {
	t      *testing.T
	db     *pgxpool.Pool
	slot   string
	reader *truth.Reader
}

func newFixture(t *testing.T, address string) *fixture {
	t.Helper()
	slot := "truth_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	require.NoError(t, truth.Create(t.Context(), address, slot))
	_, err := sql.Migrate(t.Context(), address)
	require.NoError(t, err)
	return &fixture{t: t, db: harness.Connect(t, address), slot: slot, reader: truth.NewReader(address, slot)}
}

// run has the reader read until stop is called.
func (f *fixture) run() (stop func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.reader.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(f.t, <-done)
	})
	f.t.Cleanup(stop)
	return stop
}

// exec runs statements, as one transaction unless they say otherwise.
func (f *fixture) exec(statements string, args ...any) {
	f.t.Helper()
	conn, err := f.db.Acquire(f.t.Context())
	require.NoError(f.t, err)
	defer conn.Release()
	_, err = conn.Conn().PgConn().Exec(f.t.Context(), fmt.Sprintf(statements, args...)).ReadAll()
	require.NoError(f.t, err)
}

func (f *fixture) text(query string, args ...any) string {
	f.t.Helper()
	var text string
	require.NoError(f.t, f.db.QueryRow(f.t.Context(), query, args...).Scan(&text))
	return text
}

func (f *fixture) lsn(query string, args ...any) history.LSN {
	f.t.Helper()
	lsn, err := history.ParseLSN(f.text(query, args...))
	require.NoError(f.t, err)
	return lsn
}

// caughtUp waits until everything committed by now was read, and returns it.
func (f *fixture) caughtUp() []history.Tx {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), within)
	defer cancel()
	require.NoError(f.t, f.reader.Until(ctx, f.lsn("SELECT pg_current_wal_flush_lsn()::text")))
	return f.reader.Txs()
}

// numbers lists the transactions' events by their payload's n.
func numbers(txs []history.Tx) [][]int64 {
	var all [][]int64
	for _, tx := range txs {
		var ns []int64
		for _, item := range tx.Items {
			ns = append(ns, item.Event.Number())
		}
		all = append(all, ns)
	}
	return all
}

const publish = "SELECT outbox.publish('a.b', '{\"n\": %d}');"

func TestReadsEventsAsTheyCommit(t *testing.T) {
	t.Parallel()
	f := newFixture(t, harness.EmptyDatabase(t))
	f.exec("CREATE PUBLICATION p FOR ALL TABLES; CREATE TABLE other (a text)")
	f.exec("SELECT pg_create_logical_replication_slot('%s_p', 'pgoutput')", f.slot)
	var tailed []history.Tx
	f.reader.Tail(func(tx history.Tx) { tailed = append(tailed, tx) })
	stop := f.run()

	f.exec("BEGIN;"+publish+"SAVEPOINT s;"+publish+"ROLLBACK TO s;"+publish+"SAVEPOINT r;"+publish+"RELEASE r; COMMIT", 1, 2, 3, 4)
	f.exec("BEGIN;"+publish+"ROLLBACK", 5)
	f.exec("BEGIN;"+publish+"PREPARE TRANSACTION '%s 1'", 6, f.slot)
	f.exec("BEGIN;"+publish+"PREPARE TRANSACTION '%s 2'", 7, f.slot)
	f.exec("INSERT INTO other VALUES ('nothing of ours')")
	f.exec(`SELECT outbox.emit('a.b', '{"n": 8}', key => 'k', tenant => 'it''s')`)
	f.exec("SELECT pg_logical_emit_message(false, 'outbox', 'no event'), pg_logical_emit_message(true, 'other', 'no event')")
	f.exec("COMMIT PREPARED '%s 1'", f.slot)
	f.exec("ROLLBACK PREPARED '%s 2'", f.slot)
	f.exec(`SELECT outbox.publish('a.b', jsonb_build_object('n', 9, 'x', repeat('it''s ', 1000000)))`)
	f.exec("DELETE FROM outbox.events WHERE payload @> '{\"n\": 1}'")

	txs := f.caughtUp()
	require.Equal(t, [][]int64{{1, 3, 4}, {8}, {6}, {9}}, numbers(txs))
	stop()
	require.Equal(t, txs, tailed)
	require.Equal(t, f.pgoutputEnds(f.slot+"_p", txs), ends(txs))

	e := txs[1].Items[0].Event
	require.Equal(t, history.Event{ID: e.ID, Type: "a.b", Tenant: "it's", Key: "k", Payload: json.RawMessage(`{"n": 8}`), Emitted: true, CreatedAt: e.CreatedAt}, *e)
	for _, tx := range txs { // made before they were committed, by the same clock
		for _, item := range tx.Items {
			require.WithinRange(t, item.Event.CreatedAt, tx.CommittedAt.Add(-within), tx.CommittedAt)
		}
	}
	require.Equal(t, f.text("SELECT id::text FROM outbox.events WHERE payload @> '{\"n\": 3}'"), txs[0].Items[1].Event.ID.String())
	require.Equal(t, f.text("SELECT payload::text FROM outbox.events WHERE payload @> '{\"n\": 9}'"), string(txs[3].Items[0].Event.Payload))
	require.Equal(t, f.text("SELECT xmin::text FROM outbox.events WHERE payload @> '{\"n\": 9}'"), fmt.Sprint(txs[3].XID))
	for i, tx := range txs {
		require.WithinDuration(t, time.Now(), tx.CommittedAt, within)
		require.WithinDuration(t, time.Now(), tx.SeenAt, within)
		require.True(t, i == 0 || tx.LSN > txs[i-1].LSN)
	}
}

func ends(txs []history.Tx) []history.LSN {
	var all []history.LSN
	for _, tx := range txs {
		all = append(all, tx.LSN)
	}
	return all
}

// pgoutputEnds asks another plugin where the same transactions end.
func (f *fixture) pgoutputEnds(slot string, txs []history.Tx) []history.LSN {
	f.t.Helper()
	rows, err := f.db.Query(f.t.Context(), `SELECT xid::text, data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL,
		'proto_version', '1', 'publication_names', 'p', 'messages', 'true')`, slot)
	require.NoError(f.t, err)
	defer rows.Close()
	byXID := make(map[string]history.LSN)
	for rows.Next() {
		var xid string
		var data []byte
		require.NoError(f.t, rows.Scan(&xid, &data))
		if data[0] == 'C' { // flags, LSN of the commit, its end
			byXID[xid] = history.LSN(binary.BigEndian.Uint64(data[10:]))
		}
	}
	require.NoError(f.t, rows.Err())
	var all []history.LSN
	for _, tx := range txs {
		all = append(all, byXID[fmt.Sprint(tx.XID)])
	}
	return all
}

func TestReadsSubscriptions(t *testing.T) {
	t.Parallel()
	f := newFixture(t, harness.EmptyDatabase(t))
	f.run()
	f.exec(`INSERT INTO outbox.subscriptions (id, tenant, name, url, event_types, filters, secret, payload_format, max_retries, timeout)
		VALUES ('0199a0b1-0000-7000-8000-000000000001', 'it''s', 'n', 'http://127.0.0.1:1/x', '{a.b,"c,\"d",x.*}', '{"a_min": 1.50}', 'it''s secret', 'raw', 7, '2.5 s')`)
	// Incompressible and long: stored apart, and not repeated when another column changes.
	f.exec(`UPDATE outbox.subscriptions SET filters = (SELECT jsonb_build_object('a', string_agg(sha512(i::text::bytea)::text, '')) FROM generate_series(1, 200) i)`)
	f.exec(`BEGIN; UPDATE outbox.subscriptions SET is_active = false, secret = null, timeout = '1 min'; %s DELETE FROM outbox.subscriptions; COMMIT`,
		fmt.Sprintf(publish, 1))

	txs := f.caughtUp()
	require.Len(t, txs, 3)
	id := uuid.MustParse("0199a0b1-0000-7000-8000-000000000001")
	for _, tx := range txs { // it began before it ended, by the same clock
		at := &tx.Items[0].Subscription.ChangedAt
		require.WithinRange(t, *at, tx.CommittedAt.Add(-within), tx.CommittedAt)
		*at = time.Time{}
	}
	want := history.Subscription{
		ID: id, Tenant: "it's", URL: "http://127.0.0.1:1/x", EventTypes: []string{"a.b", `c,"d`, "x.*"}, Filters: json.RawMessage(`{"a_min": 1.50}`),
		Secret: "it's secret", Signature: "sha256", Format: "raw", BatchSize: 1, Ordering: "none", MaxRetries: 7, RetryDelayMS: 60_000, TimeoutMS: 2500, Active: true,
	}
	require.Equal(t, []history.Item{{Subscription: &want}}, txs[0].Items)
	long := txs[1].Items[0].Subscription.Filters
	require.Greater(t, len(long), 20000)
	want.Filters = long
	require.Equal(t, []history.Item{{Subscription: &want}}, txs[1].Items)
	want.Active, want.Secret, want.TimeoutMS = false, "", 60000
	require.Len(t, txs[2].Items, 3)
	require.Equal(t, &want, txs[2].Items[0].Subscription)
	require.Equal(t, int64(1), txs[2].Items[1].Event.Number())
	require.Equal(t, &id, txs[2].Items[2].Deleted)
}

// server is one that the test may break. Its timeout is shorter than the reader's own interval, so that only
// answers to the server's questions keep the connection.
func server(t *testing.T) (*localpg.Server, *fixture) {
	t.Helper()
	s := harness.StartServer(t, "", map[string]string{"wal_sender_timeout": "800ms"})
	return s, newFixture(t, s.URL("postgres"))
}

func TestKeepsItsConnectionAndItsSlot(t *testing.T) {
	t.Parallel()
	s, f := server(t)
	stop := f.run()
	f.exec(publish, 1)
	f.caughtUp()
	pid := f.text("SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = $1", f.slot)

	// Nobody writes to the outbox, and the slot follows the WAL all the same.
	f.exec("CREATE TABLE other AS SELECT FROM generate_series(1, 1000)")
	end := f.lsn("SELECT pg_current_wal_flush_lsn()::text")
	harness.Eventually(t, within, "the slot has moved", func() bool {
		return f.lsn("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", f.slot) >= end
	})
	began := f.text("SELECT clock_timestamp()::text")
	harness.Eventually(t, within, "the server has heard of it for three timeouts", func() bool {
		return f.text("SELECT (max(reply_time) > $1::timestamptz + interval '2.4 s')::text FROM pg_stat_replication WHERE pid = $2::int", began, pid) == "true"
	})
	require.Equal(t, pid, f.text("SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = $1", f.slot))

	// A server that shuts down in order waits until we have read everything; one that is gone is no error.
	require.NoError(t, s.Stop("fast"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, f.reader.Until(ctx, end<<1), "connect for replication", "why it takes so long is said")
	stop()
}

// A slot goes back when the server crashes, to where it was last saved: nothing is read twice.
func TestReadsNothingTwiceAfterACrash(t *testing.T) {
	t.Parallel()
	s, f := server(t)
	stop := f.run()
	f.exec("CHECKPOINT")
	for n := range 20 {
		f.exec(publish, n)
	}
	read := f.caughtUp()
	require.Len(t, read, 20)
	stop()
	require.NoError(t, s.Stop("immediate"))
	require.NoError(t, s.Restart(t.Context()))
	f.db.Reset()
	require.Less(t, f.lsn("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", f.slot), read[0].LSN,
		"the slot went back, or else this test shows nothing")

	f.run()
	f.exec(publish, 20)
	require.Equal(t, sequence(0, 21), numbers(f.caughtUp()))
}

// Crashes strike while others write, and no event is missing or there twice.
func TestReadsEverythingThroughCrashes(t *testing.T) {
	t.Parallel()
	s, f := server(t)
	f.run()
	for crash := range 3 {
		stopWriting, written := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(written)
			for n := crash * 1_000_000; !closed(stopWriting); n++ {
				_, _ = f.db.Exec(t.Context(), "SELECT outbox.publish('a.b', jsonb_build_object('n', $1::int))", n) // fails while the server is down
			}
		}()
		seen := len(f.reader.Txs())
		harness.Eventually(t, within, "some were read", func() bool { return len(f.reader.Txs()) > seen+50 })
		require.NoError(t, s.Stop("immediate"))
		close(stopWriting)
		<-written
		require.NoError(t, s.Restart(t.Context()))
		f.db.Reset()
	}
	rows, err := f.db.Query(t.Context(), "SELECT (payload->>'n')::int FROM outbox.events")
	require.NoError(t, err)
	defer rows.Close()
	var want, got []int64
	for rows.Next() {
		var n int64
		require.NoError(t, rows.Scan(&n))
		want = append(want, n)
	}
	require.NoError(t, rows.Err())
	for _, tx := range f.caughtUp() {
		got = append(got, tx.Items[0].Event.Number())
	}
	require.ElementsMatch(t, want, got)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func sequence(from, to int64) [][]int64 {
	var all [][]int64
	for n := from; n < to; n++ {
		all = append(all, []int64{n})
	}
	return all
}

// Output that is not understood ends Run, and everybody who waits is told.
func TestGivesUpOnUnknownOutput(t *testing.T) {
	t.Parallel()
	f := newFixture(t, harness.EmptyDatabase(t))
	f.exec("SELECT pg_logical_emit_message(true, 'outbox', 'no event')")
	done := make(chan error, 1)
	go func() { done <- f.reader.Run(t.Context()) }()
	const names = "no event"
	require.ErrorContains(t, f.reader.Until(t.Context(), f.lsn("SELECT pg_current_wal_flush_lsn()::text")), names)
	require.ErrorContains(t, <-done, names)
}

func TestCreateSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	f := newFixture(t, harness.EmptyDatabase(t))
	require.ErrorContains(t, truth.Create(t.Context(), f.db.Config().ConnString(), f.slot), "already exists")
	require.ErrorContains(t, truth.Create(t.Context(), "postgres://127.0.0.1:1/x", f.slot), "create slot "+f.slot)
}
