package sql_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// as returns a session of a new role that has USAGE on the schema and the given rights on a table.
func as(t *testing.T, db *pgxpool.Pool, rights, table string) *pgxpool.Conn {
	t.Helper()
	role := `"walhook_` + uuid.NewString() + `"`
	exec(t, db, "CREATE ROLE "+role)
	t.Cleanup(func() { // roles belong to the whole server
		_, err := db.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		require.NoError(t, err)
	})
	exec(t, db, "GRANT USAGE ON SCHEMA outbox TO "+role)
	exec(t, db, "GRANT "+rights+" ON "+table+" TO "+role)
	session, err := db.Acquire(t.Context())
	require.NoError(t, err)
	t.Cleanup(session.Release)
	_, err = session.Exec(t.Context(), "SET ROLE "+role)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := session.Exec(context.Background(), "RESET ROLE")
		require.NoError(t, err)
	})
	return session
}

// An application may publish without being able to read anything.
func TestApplicationRole(t *testing.T) {
	t.Parallel()
	db := connect(t)
	app := as(t, db, "INSERT", "outbox.events")
	for _, statement := range []string{
		"SELECT outbox.publish('x', '{}')",
		"SELECT outbox.emit('x', '{}')",
		"INSERT INTO outbox.events (type) VALUES ('x')",
	} {
		_, err := app.Exec(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	require.Equal(t, 2, value[int](t, db, "SELECT count(*) FROM outbox.events"))
	_, err := app.Exec(t.Context(), "SELECT FROM outbox.events")
	require.ErrorContains(t, err, "permission denied")
}

// Who configures subscriptions needs no right on what the triggers write, and gets none.
func TestConfigurationRole(t *testing.T) {
	t.Parallel()
	db := connect(t)
	config := as(t, db, "SELECT, INSERT, UPDATE, DELETE", "outbox.subscriptions")
	for _, statement := range []string{
		"INSERT INTO outbox.subscriptions (name, url) VALUES ('n', 'http://localhost')",
		"UPDATE outbox.subscriptions SET url = 'http://127.0.0.1'",
		"SELECT outbox.deactivate(id) FROM outbox.subscriptions",
		"DELETE FROM outbox.subscriptions",
	} {
		_, err := config.Exec(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	require.Equal(t, 3, value[int](t, db, "SELECT count(*) FROM outbox.subscription_revisions"))

	_, err := config.Exec(t.Context(), "CREATE TEMPORARY TABLE mine (LIKE outbox.subscriptions)")
	require.NoError(t, err)
	for statement, says := range map[string]string{
		"SELECT FROM outbox.subscription_revisions":                                                                "permission denied",
		"SELECT nextval('outbox.subscription_revision')":                                                           "permission denied",
		"CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION outbox.subscriptions_after_write()":   "permission denied for function",
		"CREATE TRIGGER t BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION outbox.subscriptions_before_write()": "permission denied for function",
	} {
		_, err := config.Exec(t.Context(), statement)
		require.ErrorContains(t, err, says, statement)
	}
}
