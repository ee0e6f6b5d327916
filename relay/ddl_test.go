package relay_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// TestTablesChangeUnderTheStream: columns that are added, and what does not concern the columns that matter,
// pass, between transactions, inside of one, and while the relay is stopped.
func TestTablesChangeUnderTheStream(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	id := subscribe(t, db, r.URL(), "max_in_flight", "1")
	first := start(t, options(url))
	conn := session(t, url)
	publish := func(kind string) string { return "SELECT outbox.publish('" + kind + "', '{\"n\": 1}', source => 's')" }
	run(t, conn,
		publish("before"),
		"ALTER TABLE outbox.events ADD COLUMN region text NOT NULL DEFAULT 'eu'",
		publish("added"),
		"BEGIN", publish("in.one.1"),
		"ALTER TABLE outbox.events ADD COLUMN extra jsonb DEFAULT '{\"a\": 1}', ALTER COLUMN region DROP NOT NULL",
		publish("in.one.2"),
		"ALTER TABLE outbox.events RENAME COLUMN extra TO more",
		publish("in.one.3"), "COMMIT",
		// Two columns change places: rows are read by what their columns were called when they were written.
		"BEGIN", publish("before.swap"),
		"ALTER TABLE outbox.events RENAME COLUMN payload TO other",
		"ALTER TABLE outbox.events RENAME COLUMN headers TO payload",
		"ALTER TABLE outbox.events RENAME COLUMN other TO headers",
		publish("after.swap"), "COMMIT",
		"BEGIN", "ALTER TABLE outbox.events ADD COLUMN never int", publish("lost"), "ROLLBACK",
		"ALTER TABLE outbox.events DROP COLUMN more",
		publish("dropped"),
		"ALTER TABLE outbox.subscriptions ADD COLUMN note text DEFAULT 'x'")
	settled(t, db)
	first.stop(t)
	run(t, conn, publish("stopped.1"), "ALTER TABLE outbox.events DROP COLUMN region", publish("stopped.2"),
		"UPDATE outbox.subscriptions SET event_types = '{last}' WHERE id = '"+id.String()+"'", publish("unwanted"), publish("last"))
	start(t, first.options)
	settled(t, db)
	require.Equal(t, []string{"before", "added", "in.one.1", "in.one.2", "in.one.3", "before.swap", "after.swap", "dropped", "stopped.1", "stopped.2", "last"}, types(r.Requests()))
	for _, request := range r.Requests() {
		require.JSONEq(t, `{"n": 1}`, string(read(t, request).EventData), request.Header.Get("X-Webhook-Event"))
	}
}

// TestRowsThatAreNoNewEvents: updates and deletes of the outbox, its truncation, messages of others and the
// relay's own tables send nothing.
func TestRowsThatAreNoNewEvents(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	start(t, options(url))
	run(t, session(t, url),
		"SELECT outbox.publish('once', '{}') FROM generate_series(1, 3)",
		"UPDATE outbox.events SET payload = '{\"changed\": true}'",
		"DELETE FROM outbox.events",
		"SELECT pg_logical_emit_message(true, 'somebody', 'else')",
		"SELECT pg_logical_emit_message(true, 'outbox', 'no event')",
		"SELECT pg_logical_emit_message(true, 'outbox', '{\"id\": \"no uuid\", \"type\": \"a\", \"payload\": 1}')",
		"SELECT pg_logical_emit_message(false, 'outbox', jsonb_build_object('id', gen_random_uuid(), 'type', 'a', 'payload', 1)::text)",
		"CREATE TABLE events (LIKE outbox.events INCLUDING ALL)",
		"INSERT INTO events (type) VALUES ('elsewhere')",
		"SELECT outbox.publish('last', '{}')",
		"TRUNCATE outbox.events")
	settled(t, db)
	require.ElementsMatch(t, []string{"once", "once", "once", "last"}, types(r.Requests()))
}

// TestColumnThatIsLost stops the stream, which says what is missing, and not the queue.
func TestColumnThatIsLost(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	r.Script(answer(500))
	subscribe(t, db, r.URL(), "retry_delay", "'1 s'")
	observed := start(t, options(url))
	exec(t, db, "SELECT outbox.publish('before', '{}')")
	r.Wait(1, soon)
	recorded(t, db)
	exec(t, db, "ALTER TABLE outbox.events RENAME COLUMN source TO origin")
	exec(t, db, "INSERT INTO outbox.events (type) VALUES ('after')")
	harness.Eventually(t, soon, "the relay says what is missing", func() bool {
		return strings.Contains(observed.Health().Error, "lost its column source")
	})
	require.False(t, observed.Health().Ready())
	harness.Eventually(t, soon, "the retry is delivered all the same", func() bool {
		return value[int](t, db, "SELECT count(*) FROM outbox.attempts WHERE attempt = 2 AND status = 200") == 1
	})
	require.Equal(t, []string{"before", "before"}, types(r.Requests()))
	require.False(t, value[bool](t, db, "SELECT lag_seconds = 0 FROM outbox.replication_lag"), "what cannot be read is not passed over")
}
