package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
	"github.com/walhook/walhook/test/harness"
)

// source is a database with publications and a slot.
type source struct {
	db      *pgxpool.Pool
	options stream.Options
	from    delivery.LSN
}

// newSource makes them on the server at url.
func newSource(t *testing.T, url string) *source {
	t.Helper()
	s := &source{db: harness.Connect(t, url), options: stream.Options{URL: url, Slot: "stream_" + uuid.NewString()[:8],
		Publications: []string{"walhook_events", "walhook_config"}, ConnectTimeout: 10 * time.Second, StatusInterval: 10 * time.Second,
		Log: zerolog.New(zerolog.NewTestWriter(t))}}
	s.exec(t, `CREATE PUBLICATION walhook_events FOR TABLE outbox.events WITH (publish = 'insert', publish_via_partition_root = true);
		CREATE PUBLICATION walhook_config FOR TABLE outbox.subscriptions`)
	created, err := stream.CreateSlot(t.Context(), url, s.options.Slot)
	require.NoError(t, err)
	created.Close(t.Context())
	s.from = created.From
	return s
}

func (s *source) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := s.db.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// open starts the stream over any way to the server; a predecessor may still be letting go of the slot.
func (s *source) open(t *testing.T, url string, skip delivery.Position) *stream.Conn {
	t.Helper()
	o := s.options
	o.URL = url
	var conn *stream.Conn
	harness.Eventually(t, 10*time.Second, "the slot is free", func() bool {
		var err error
		conn, err = stream.Start(t.Context(), o, s.from, skip)
		if !errors.Is(err, nil) {
			require.Equal(t, "55006", code(err), "start: %v", err)
		}
		return err == nil
	})
	t.Cleanup(conn.Close)
	return conn
}

// confirmed is what the server was told.
func (s *source) confirmed(t *testing.T) delivery.LSN {
	t.Helper()
	var text string
	require.NoError(t, s.db.QueryRow(t.Context(), "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", s.options.Slot).Scan(&text))
	lsn, err := delivery.ParseLSN(text)
	require.NoError(t, err)
	return lsn
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// collect receives until n transactions have ended, or an error comes.
func collect(conn *stream.Conn, n int) (items []delivery.Item, err error) {
	for deadline := time.Now().Add(10 * time.Second); n > 0; {
		batch, err := conn.Receive(time.Second)
		if err != nil {
			return items, err
		}
		for _, i := range batch.Items {
			items = append(items, i)
			if i.Event == nil && i.Change == nil {
				n--
			}
		}
		if time.Now().After(deadline) {
			return items, fmt.Errorf("%d transactions did not come", n)
		}
	}
	return items, nil
}

// failure receives until the stream breaks.
func failure(t *testing.T, conn *stream.Conn) error {
	t.Helper()
	for range 100 {
		if _, err := conn.Receive(100 * time.Millisecond); err != nil {
			return err
		}
	}
	t.Fatal("the stream goes on")
	return nil
}

// summary is the kinds of items, a transaction a word.
func summary(items []delivery.Item) string {
	var b strings.Builder
	for _, i := range items {
		switch {
		case i.Event != nil:
			b.WriteString(i.Event.Type)
		case i.Change != nil && i.Change.Deleted:
			b.WriteString("-")
		case i.Change != nil:
			b.WriteString("+")
		default:
			b.WriteString(" ")
		}
	}
	return b.String()
}

func TestCommittedTransactionsComeInCommitOrder(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	conn := s.open(t, s.options.URL, delivery.Position{})
	first, err := s.db.Begin(t.Context())
	require.NoError(t, err)
	_, err = first.Exec(t.Context(), `SELECT outbox.publish('a', '{"n": 123456789012345678901234567890.10}', key => 'k', tenant => 't', source => 's',
		correlation_id => 'c', headers => '{"traceparent": "00-1"}'), outbox.emit('b', '{"n": 1.10}', key => 'k', tenant => 't', source => 's',
		correlation_id => 'c', headers => '{"traceparent": "00-1"}')`)
	require.NoError(t, err)
	s.exec(t, `BEGIN; SELECT outbox.publish('x', '{}'), outbox.emit('y', '{}'); ROLLBACK`)
	s.exec(t, `BEGIN; SELECT outbox.publish('c', '{}'); SAVEPOINT p; SELECT outbox.publish('x', '{}'), outbox.emit('y', '{}'); ROLLBACK TO p;
		SELECT outbox.emit('d', '{}'); COMMIT`)
	require.NoError(t, first.Commit(t.Context()))
	s.exec(t, `INSERT INTO outbox.subscriptions (name, url) VALUES ('s', 'http://localhost/')`)
	s.exec(t, `BEGIN; SELECT outbox.publish('e', '{}'); UPDATE outbox.subscriptions SET event_types = '{e}'; DELETE FROM outbox.subscriptions;
		SELECT outbox.publish('f', '{}'); COMMIT`)

	items, err := collect(conn, 4)
	require.NoError(t, err)
	require.Equal(t, "cd ab + e+-f ", summary(items))
	for i := 1; i < len(items); i++ {
		require.True(t, items[i].Position.After(items[i-1].Position), "%v after %v", items[i].Position, items[i-1].Position)
	}
	var a, b = *items[3].Event, *items[4].Event
	require.Equal(t, `{"n": 123456789012345678901234567890.10}`, string(a.Payload))
	require.Equal(t, `{"n": 1.10}`, string(b.Payload))
	require.Equal(t, []bool{false, true}, []bool{a.Emitted, b.Emitted})
	require.WithinDuration(t, time.Now(), a.CommittedAt, time.Minute)
	for _, e := range []delivery.Event{a, b} {
		require.Equal(t, []string{"k", "t", "s", "c", `{"traceparent": "00-1"}`}, []string{e.Key, e.Tenant, e.Source, e.CorrelationID, string(e.Headers)})
		require.Equal(t, a.CommittedAt, e.CommittedAt)
		require.False(t, e.CreatedAt.After(e.CommittedAt))
	}
}

// What is recorded already does not come again, from the middle of a transaction as well.
func TestStartSkipsWhatIsRecorded(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	s.exec(t, `SELECT outbox.publish('a', '{}')`)
	s.exec(t, `SELECT outbox.publish('b', '{}'), outbox.emit('c', '{}'), outbox.publish('d', '{}')`)
	s.exec(t, `SELECT outbox.publish('e', '{}')`)
	conn := s.open(t, s.options.URL, delivery.Position{})
	all, err := collect(conn, 3)
	require.NoError(t, err)
	require.Equal(t, "a bcd e ", summary(all))
	conn.Close()
	for i, item := range all[:len(all)-1] {
		conn := s.open(t, s.options.URL, item.Position)
		rest, err := collect(conn, strings.Count(summary(all[i+1:]), " "))
		require.NoError(t, err)
		require.Equal(t, summary(all[i+1:]), summary(rest), "behind %v", item.Position)
		conn.Close()
	}
}

// Between reading the checkpoint and getting the slot, the slot's former owner may have moved on.
func TestResumeCorrectsWhereToBegin(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	s.exec(t, `SELECT outbox.publish('a', '{}')`)
	s.exec(t, `SELECT outbox.publish('b', '{}')`)
	conn := s.open(t, s.options.URL, delivery.Position{})
	all, err := collect(conn, 2)
	require.NoError(t, err)
	conn.Close()
	conn = s.open(t, s.options.URL, delivery.Position{})
	conn.Resume(all[1].Position.LSN, all[1].Position)
	rest, err := collect(conn, 1)
	require.NoError(t, err)
	require.Equal(t, "b ", summary(rest))
	conn.Close()
	harness.Eventually(t, 10*time.Second, "what the former owner recorded is confirmed", func() bool { return s.confirmed(t) == all[1].Position.LSN })
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	_, err := stream.Start(t.Context(), s.options, 0, delivery.Position{})
	require.ErrorContains(t, err, "no durable position is known", "a zero position would confirm everything")

	s.open(t, s.options.URL, delivery.Position{})
	_, err = stream.Start(t.Context(), s.options, s.from, delivery.Position{})
	require.Equal(t, "55006", code(err), "the slot is in use: %v", err)

	lost := s.options
	lost.Slot = "never_made"
	_, err = stream.Start(t.Context(), lost, s.from, delivery.Position{})
	require.Equal(t, "42704", code(err), "there is no such slot: %v", err)

	silent, url := newLink(t, s.options.URL)
	silent.down.Limit(0)
	hung := s.options
	hung.URL, hung.ConnectTimeout = url, 50*time.Millisecond
	_, err = stream.Start(t.Context(), hung, s.from, delivery.Position{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A slot's snapshot shows exactly what the stream does not yield.
func TestSlotAndSnapshotMeet(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	publish := func(kind string) {
		_, err := db.Exec(t.Context(), "SELECT outbox.publish($1, '{}')", kind)
		require.NoError(t, err)
	}
	publish("before")
	_, err := db.Exec(t.Context(), "CREATE PUBLICATION p FOR TABLE outbox.events WITH (publish_via_partition_root = true)")
	require.NoError(t, err)
	slot := "stream_" + uuid.NewString()[:8]
	created, err := stream.CreateSlot(t.Context(), url, slot)
	require.NoError(t, err)
	defer created.Close(t.Context())
	publish("after")

	tx, err := db.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	_, err = tx.Exec(t.Context(), "SET TRANSACTION SNAPSHOT '"+created.Snapshot+"'")
	require.NoError(t, err)
	var seen []string
	require.NoError(t, tx.QueryRow(t.Context(), "SELECT array_agg(type) FROM outbox.events").Scan(&seen))
	require.Equal(t, []string{"before"}, seen)

	conn, err := stream.Start(t.Context(), stream.Options{URL: url, Slot: slot, Publications: []string{"p"}, ConnectTimeout: 10 * time.Second,
		StatusInterval: 10 * time.Second, Log: zerolog.Nop()}, created.From, delivery.Position{})
	require.NoError(t, err)
	defer conn.Close()
	items, err := collect(conn, 1)
	require.NoError(t, err)
	require.Equal(t, "after ", summary(items))

	require.Equal(t, created.System, conn.System)
	require.NotEmpty(t, conn.System.Identifier)
	require.EqualValues(t, 1, conn.System.Timeline)
}
