package ops_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// database is one with the schema.
type database struct {
	*pgxpool.Pool
	url string
}

func newDatabase(t *testing.T) database {
	t.Helper()
	url := harness.Database(t)
	return database{harness.Connect(t, url), url}
}

func (db database) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := db.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// slot makes a slot with its checkpoint, up to which everything is recorded.
func (db database) slot(t *testing.T) string {
	t.Helper()
	name := "ops_" + uuid.NewString()[:8]
	db.exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", name)
	db.exec(t, `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline)
		SELECT slot_name, confirmed_flush_lsn, confirmed_flush_lsn, now(), 'x', 1 FROM pg_replication_slots WHERE slot_name = $1`, name)
	return name
}

// subscription inserts one and returns its id.
func (db database) subscription(t *testing.T, name string) uuid.UUID {
	t.Helper()
	var id uuid.UUID
	require.NoError(t, db.QueryRow(t.Context(), "INSERT INTO outbox.subscriptions (name, url) VALUES ($1, 'http://localhost/') RETURNING id", name).Scan(&id))
	return id
}

// waiting puts n rows for a subscription into the queue, of events committed as long ago as given, and dead
// letters likewise, with ids of which none lies in a partition of a day.
func (db database) waiting(t *testing.T, table string, subscription uuid.UUID, n int, age string) {
	t.Helper()
	columns, values := "", ""
	if table == "deliveries" {
		columns, values = ", next_attempt_at", ", now()"
	} else {
		columns, values = ", died_at, attempts", ", now() - $3::text::interval, 1"
	}
	db.exec(t, `INSERT INTO outbox.`+table+` (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index`+columns+`)
		SELECT overlay(gen_random_uuid()::text PLACING 'ffff' FROM 1 FOR 4)::uuid, $1, gen_random_uuid(), 'x', '{}', '', false, now(), now() - $3::text::interval, '0/1', g`+values+`
		FROM generate_series(1, $2::int) AS g`, subscription, n, age)
}
