package stream_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/harness"
)

// migrated brings the schema into a database of a server that the test owns.
func migrated(t *testing.T, url string) string {
	t.Helper()
	_, err := sql.Migrate(t.Context(), url)
	require.NoError(t, err)
	return url
}

// A missing publication ends the stream, on every version: up to 17 the server breaks off, from 18 on it only
// warns.
func TestMissingPublication(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, "SELECT outbox.publish('a', '{}')")
	items, err := collect(conn, 1)
	require.NoError(t, err)
	require.Equal(t, "a ", summary(items))
	s.exec(t, "DROP PUBLICATION walhook_events")
	s.exec(t, "SELECT outbox.publish('b', '{}')")
	err = failure(t, conn)
	if harness.Postgres(t).Version() >= 18 {
		require.ErrorIs(t, err, stream.ErrPublication)
	} else {
		require.Equal(t, "42704", code(err), "%v", err)
	}
}

// The table may change while the stream runs: rows are read as the table was when they were written.
func TestTableChanges(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, `SELECT outbox.publish('a', '{"n": 1}', key => 'k1')`)
	s.exec(t, `ALTER TABLE outbox.events ADD COLUMN extra text DEFAULT 'x', ADD COLUMN more int;
		SELECT outbox.publish('b', '{"n": 2}', key => 'k2')`)
	s.exec(t, `BEGIN; SELECT outbox.publish('c', '{"n": 3}', key => 'k3'); ALTER TABLE outbox.events DROP COLUMN extra;
		SELECT outbox.publish('d', '{"n": 4}', key => 'k4'); COMMIT`)
	s.exec(t, `DROP VIEW outbox.calls; ALTER TABLE outbox.events ALTER COLUMN key TYPE varchar(2000); SELECT outbox.publish('e', '{"n": 5}', key => 'k5')`)
	s.exec(t, `ALTER TABLE outbox.events RENAME TO renamed; INSERT INTO outbox.renamed (type, payload, key) VALUES ('f', '{"n": 6}', 'k6')`)
	var got []string
	for deadline := time.Now().Add(10 * time.Second); len(got) < 6 && time.Now().Before(deadline); {
		batch, err := conn.Receive(100 * time.Millisecond)
		require.NoError(t, err)
		for _, i := range batch.Items {
			if i.Event != nil {
				got = append(got, i.Event.Type+" "+i.Event.Key+" "+string(i.Event.Payload))
			}
		}
	}
	require.Equal(t, []string{`a k1 {"n": 1}`, `b k2 {"n": 2}`, `c k3 {"n": 3}`, `d k4 {"n": 4}`, `e k5 {"n": 5}`, `f k6 {"n": 6}`}, got)
}

// Without a column that deliveries need there is nothing to deliver, and the reason is said.
func TestLostColumnEndsTheStream(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, `ALTER TABLE outbox.events RENAME COLUMN correlation_id TO corr; INSERT INTO outbox.events (type) VALUES ('a')`)
	require.ErrorContains(t, failure(t, conn), "table outbox.events has lost its column correlation_id")
}

// Changed and removed rows are no events, whatever the publication says; TRUNCATE is none either.
func TestOnlyInsertsAreEvents(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	s.exec(t, `ALTER TABLE outbox.events REPLICA IDENTITY FULL; ALTER PUBLICATION walhook_events SET (publish = 'insert, update, delete, truncate')`)
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, `SELECT outbox.publish('a', '{}')`)
	s.exec(t, `UPDATE outbox.events SET type = 'x'`)
	s.exec(t, `DELETE FROM outbox.events`)
	s.exec(t, `TRUNCATE outbox.events`)
	s.exec(t, `SELECT outbox.publish('b', '{}')`)
	items, err := collect(conn, 2)
	require.NoError(t, err)
	require.Equal(t, "a b ", summary(items))
}

// Large filters are stored apart and not sent again when an update leaves them alone: the old row has them.
func TestLargeFiltersSurviveAnUpdate(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, `INSERT INTO outbox.subscriptions (name, url, filters)
		SELECT 's', 'http://localhost/', jsonb_build_object('x', jsonb_agg(md5(g::text))) FROM generate_series(1, 1000) AS g`)
	s.exec(t, `UPDATE outbox.subscriptions SET is_active = false`)
	items, err := collect(conn, 2)
	require.NoError(t, err)
	require.Equal(t, "+ + ", summary(items))
	before, after := items[0].Change.Rule, items[2].Change.Rule
	require.Greater(t, len(before.Filters), 30_000)
	require.JSONEq(t, string(before.Filters), string(after.Filters))
	require.Equal(t, []bool{true, false}, []bool{before.Active, after.Active})
	require.Greater(t, after.Revision, before.Revision)
}
