package harness_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func exists(t *testing.T, db *pgxpool.Pool, query string, args ...any) bool {
	t.Helper()
	var found bool
	require.NoError(t, db.QueryRow(t.Context(), "SELECT EXISTS ("+query+")", args...).Scan(&found))
	return found
}

const eventsTable = "SELECT FROM pg_tables WHERE schemaname = 'outbox' AND tablename = 'events'"

func TestDatabasesAreIsolated(t *testing.T) {
	for _, name := range []string{"one", "two"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := harness.Connect(t, harness.Database(t))
			require.True(t, exists(t, db, eventsTable))
			_, err := db.Exec(t.Context(), "CREATE TABLE mine ()") // fails if the other one's is here
			require.NoError(t, err)
		})
	}
}

func TestAnEmptyDatabaseHasNoSchema(t *testing.T) {
	db := harness.Connect(t, harness.EmptyDatabase(t))
	require.False(t, exists(t, db, eventsTable))
}

// A test that dies leaves everything behind for which Postgres refuses to drop a database.
func TestADatabaseIsDroppedWithAllThatUsesIt(t *testing.T) {
	var name string
	t.Run("a test that leaves a mess", func(t *testing.T) {
		address := harness.EmptyDatabase(t)
		session := connect(t, address)
		name = session.database
		session.run("CREATE TABLE x (); CREATE PUBLICATION p")
		session.run("SELECT pg_create_logical_replication_slot(s, 'pgoutput') FROM (VALUES ('idle'), ('active')) v (s)")
		connect(t, address+"&replication=database").stream("active")
		session.run("BEGIN")
		session.run("INSERT INTO x DEFAULT VALUES")
		session.run("PREPARE TRANSACTION 'it''s prepared'")
	})
	db := harness.Connect(t, harness.EmptyDatabase(t))
	require.False(t, exists(t, db, "SELECT FROM pg_database WHERE datname = $1", name))
	require.False(t, exists(t, db, "SELECT FROM pg_replication_slots WHERE database = $1", name))
}

// conn is a connection that nobody closes but the server.
type conn struct {
	*pgconn.PgConn
	t        *testing.T
	database string
}

func connect(t *testing.T, address string) conn {
	t.Helper()
	config, err := pgconn.ParseConfig(address)
	require.NoError(t, err)
	c, err := pgconn.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	return conn{c, t, config.Database}
}

func (c conn) run(sql string) {
	c.t.Helper()
	_, err := c.Exec(c.t.Context(), sql).ReadAll()
	require.NoError(c.t, err, sql)
}

// stream begins to stream from a slot and lets it be.
func (c conn) stream(slot string) {
	c.t.Helper()
	c.Frontend().SendQuery(&pgproto3.Query{
		String: "START_REPLICATION SLOT " + slot + " LOGICAL 0/0 (proto_version '1', publication_names 'p')",
	})
	require.NoError(c.t, c.Frontend().Flush())
	message, err := c.ReceiveMessage(c.t.Context())
	require.NoError(c.t, err)
	require.IsType(c.t, &pgproto3.CopyBothResponse{}, message)
}

func TestVersions(t *testing.T) {
	t.Setenv("WALHOOK_TEST_PG_DIRS", "/a/bin:/b/bin:")
	require.Equal(t, []string{"/a/bin", "/b/bin"}, harness.Versions())

	t.Setenv("WALHOOK_TEST_PG_DIRS", "")
	t.Setenv("PG_BIN", t.TempDir())
	require.Equal(t, []string{""}, harness.Versions(), "something must be left to fail")
}

func TestStartServer(t *testing.T) {
	for _, bin := range harness.Versions() {
		server := harness.StartServer(t, bin, map[string]string{"wal_sender_timeout": "4s"})
		require.Equal(t, bin, server.BinDir())
		db := harness.Connect(t, server.URL("postgres"))
		require.True(t, exists(t, db, "SELECT WHERE current_setting('wal_sender_timeout') = '4s'"))
	}
}

func TestCopyServer(t *testing.T) {
	original := harness.StartServer(t, "", nil)
	_, err := harness.Connect(t, original.URL("postgres")).Exec(t.Context(), "CREATE TABLE x AS SELECT 1 AS n")
	require.NoError(t, err)
	require.NoError(t, original.Stop("fast"))
	standby := harness.CopyServer(t, original, true, map[string]string{"work_mem": "5MB"})
	require.True(t, exists(t, harness.Connect(t, standby.URL("postgres")),
		"SELECT FROM x WHERE pg_is_in_recovery() AND current_setting('work_mem') = '5MB'"))
	require.NoError(t, original.Restart(t.Context()))
	require.True(t, exists(t, harness.Connect(t, original.URL("postgres")), "SELECT FROM x WHERE NOT pg_is_in_recovery()"))
}
