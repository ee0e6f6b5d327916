package sql_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/harness"
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

// grouped returns a session of a new login role of a server that belongs to the test alone, in one of the group roles, and
// one of the schema's owner, who is no superuser.
func grouped(t *testing.T, group string) (member, owner *pgxpool.Pool) {
	t.Helper()
	server := harness.StartServer(t, "", nil)
	admin := harness.Connect(t, server.URL("postgres"))
	exec(t, admin, "CREATE ROLE owner LOGIN CREATEROLE")
	exec(t, admin, "CREATE DATABASE app OWNER owner")
	at := strings.Replace(server.URL("app"), "postgres@", "owner@", 1)
	_, err := sql.Migrate(t.Context(), at)
	require.NoError(t, err)
	require.NoError(t, sql.GrantRoles(t.Context(), at))
	require.NoError(t, sql.GrantRoles(t.Context(), at), "it may be repeated")
	exec(t, admin, "CREATE ROLE member LOGIN IN ROLE "+group)
	return harness.Connect(t, strings.Replace(at, "owner@", "member@", 1)), harness.Connect(t, at)
}

func TestRolesMayNotLogIn(t *testing.T) {
	t.Parallel()
	_, owner := grouped(t, "walhook_app")
	require.ElementsMatch(t, sql.Roles(), texts(t, owner, `SELECT rolname FROM pg_roles WHERE rolname LIKE 'walhook%'
		AND NOT (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)`))
}

// may and mayNot run statements, each of which must succeed or lack a right.
func may(t *testing.T, db *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := db.Exec(t.Context(), s)
		require.NoError(t, err, s)
	}
}

func mayNot(t *testing.T, db *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := db.Exec(t.Context(), s)
		require.ErrorContains(t, err, "SQLSTATE 42501", s) // insufficient_privilege
	}
}

func TestAppRolePublishesAndNothingElse(t *testing.T) {
	t.Parallel()
	app, owner := grouped(t, "walhook_app")
	may(t, app, "SELECT outbox.publish('x', '{}', key => 'k', tenant => 't', source => 's', correlation_id => 'c', headers => '{}')",
		"SELECT outbox.emit('x', '{}', key => 'k')", "INSERT INTO outbox.events (type, created_at) VALUES ('x', now())")
	for _, relation := range texts(t, owner, `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'outbox'::regnamespace
		AND c.relkind IN ('r', 'p', 'v')`) {
		for _, right := range []string{"SELECT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"} {
			require.False(t, value[bool](t, app, "SELECT has_table_privilege($1, $2)", relation, right), "%s on %s", right, relation)
		}
		require.False(t, value[bool](t, app, "SELECT has_any_column_privilege($1, 'SELECT, UPDATE, REFERENCES')", relation), relation)
		require.Equal(t, relation == "outbox.events", value[bool](t, app, "SELECT has_any_column_privilege($1, 'INSERT')", relation), relation)
	}
	mayNot(t, app, "SELECT outbox.replay(gen_random_uuid(), now() - interval '1 hour')", "SELECT outbox.create_partitions()", "SELECT nextval('outbox.subscription_revision')",
		"CREATE TABLE outbox.mine ()")
}

func TestConfigRoleConfiguresAndReadsNoPayload(t *testing.T) {
	t.Parallel()
	config, owner := grouped(t, "walhook_config")
	exec(t, owner, "SELECT outbox.publish('x', '{\"private\": true}')")
	may(t, config, "INSERT INTO outbox.subscriptions (name, url, secret) VALUES ('n', 'http://localhost', 'old')",
		"UPDATE outbox.subscriptions SET description = 'd'", "SELECT * FROM outbox.subscriptions",
		"SELECT outbox.deactivate(id), outbox.activate(id) FROM outbox.subscriptions",
		"SELECT outbox.rotate_secret(id, 'new') FROM outbox.subscriptions",
		"SELECT outbox.send_test(id) FROM outbox.subscriptions",
		"SELECT outbox.cancel_replay(outbox.replay(id, now() - interval '1 hour')) FROM outbox.subscriptions",
		"INSERT INTO outbox.event_types (name) VALUES ('a.b')", "DELETE FROM outbox.event_types",
		newToken, "SELECT * FROM outbox.api_tokens", "UPDATE outbox.api_tokens SET revoked_at = now()",
		"SELECT * FROM outbox.subscription_stats", "SELECT * FROM outbox.queue", "SELECT * FROM outbox.replication_lag", "SELECT * FROM outbox.replays",
		"DELETE FROM outbox.subscriptions")
	mayNot(t, config, "SELECT FROM outbox.events", "SELECT payload FROM outbox.deliveries", "SELECT payload FROM outbox.emitted_events", "SELECT FROM outbox.dead_letters",
		"SELECT payload FROM outbox.calls", "SELECT outbox.publish('x', '{}')", "UPDATE outbox.checkpoint SET epoch = 9", "SELECT outbox.create_partitions()",
		"SELECT outbox.redeliver(id) FROM (SELECT gen_random_uuid() AS id) AS d")
}

func TestReaderRoleReadsAllButSecrets(t *testing.T) {
	t.Parallel()
	reader, owner := grouped(t, "walhook_reader")
	exec(t, owner, `INSERT INTO outbox.subscriptions (name, url, secret, headers) VALUES ('n', 'http://localhost', 'hush', '{"Authorization": "hush"}')`)
	for _, relation := range texts(t, owner, `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'outbox'::regnamespace
		AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition`) {
		columns := texts(t, reader, `SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
			AND has_column_privilege(attrelid, attnum, 'SELECT')`, relation)
		require.NotEmpty(t, columns, relation)
		may(t, reader, "SELECT "+strings.Join(columns, ", ")+" FROM "+relation)
		hidden := texts(t, reader, `SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
			AND NOT has_column_privilege(attrelid, attnum, 'SELECT') ORDER BY attname`, relation)
		want := map[string]string{"outbox.subscriptions": "headers previous_secret secret", "outbox.subscription_revisions": "headers", "outbox.api_tokens": "hash"}
		require.Equal(t, want[relation], strings.Join(hidden, " "), relation)
	}
	mayNot(t, reader, "SELECT hash FROM outbox.api_tokens", "UPDATE outbox.api_tokens SET revoked_at = NULL", "SELECT secret FROM outbox.subscriptions", "SELECT * FROM outbox.subscriptions", "SELECT headers FROM outbox.subscription_revisions",
		"UPDATE outbox.subscriptions SET name = 'x'", "INSERT INTO outbox.events (type) VALUES ('x')", "DELETE FROM outbox.attempts", "SELECT outbox.activate(gen_random_uuid())",
		"SELECT outbox.create_partitions()")
	may(t, reader, "SELECT * FROM outbox.audit(now() - interval '1 day')")
}

// Access goes through the parents: a partition that is made later is read and written like all others.
func TestRelayRoleNeedsNoGrantsOnPartitions(t *testing.T) {
	t.Parallel()
	relay, owner := grouped(t, "walhook_relay")
	made := texts(t, relay, "SELECT outbox.create_partitions('30 days')")
	require.NotEmpty(t, made)
	last := value[string](t, owner, "SELECT max(relname) FROM pg_class WHERE relname ~ '^events_p[0-9]{8}$' AND relkind = 'r'")
	exec(t, owner, "INSERT INTO outbox.events (id, type) SELECT outbox.uuid_floor(now() + interval '30 days'), 'x'")
	require.Equal(t, "outbox."+last, value[string](t, relay, "SELECT tableoid::regclass::text FROM outbox.events"))
	mayNot(t, relay, "SELECT FROM outbox."+last, "DELETE FROM outbox.events", "DELETE FROM outbox.api_tokens", "TRUNCATE outbox.subscriptions", "DROP TABLE outbox.events_default", "UPDATE outbox.events SET type = 'y'", "TRUNCATE outbox.attempts")
	may(t, relay, "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'r', verified_at = now(), verification_error = 'e', allowed_rate = 1, is_active = false",
		"SELECT FROM outbox.subscriptions FOR UPDATE", "SELECT secret FROM outbox.subscriptions")
}

// newToken is an insert of a token; its hash is of no token.
const newToken = "INSERT INTO outbox.api_tokens (name, hash, hint, scopes) VALUES ('n', sha256('x'), 'whk_x', '{read}')"

// What API and dashboard do besides what the relay does.
func TestRelayRoleServesTheAPI(t *testing.T) {
	t.Parallel()
	relay, owner := grouped(t, "walhook_relay")
	exec(t, owner, checkpoint, "s", "now")
	may(t, relay, "INSERT INTO outbox.subscriptions (name, url, secret) VALUES ('n', 'http://localhost', 'old')", "UPDATE outbox.subscriptions SET url = 'http://127.0.0.1'",
		"SELECT outbox.deactivate(id), outbox.activate(id) FROM outbox.subscriptions", "SELECT outbox.rotate_secret(id, 'new') FROM outbox.subscriptions",
		"SELECT outbox.send_test(id) FROM outbox.subscriptions", "SELECT outbox.cancel_replay(outbox.replay(id, now() - interval '1 hour')) FROM outbox.subscriptions",
		"INSERT INTO outbox.event_types (name, validation) VALUES ('a.b', 'reject')", "UPDATE outbox.event_types SET description = 'd'", "DELETE FROM outbox.event_types",
		newToken, "UPDATE outbox.api_tokens SET last_used_at = now() WHERE hash = sha256('x')", "UPDATE outbox.api_tokens SET revoked_at = now()",
		"SELECT outbox.publish('x', '{}', tenant => 't')", "SELECT * FROM outbox.system_now", "SELECT * FROM outbox.dead_letters", "SELECT * FROM outbox.queue",
		"SELECT * FROM outbox.calls", "SELECT * FROM outbox.subscription_stats", "DELETE FROM outbox.subscriptions")
	require.True(t, value[bool](t, relay, "SELECT outbox.sample_system('s')"))
	require.False(t, value[bool](t, relay, "SELECT outbox.sample_system('s')"), "it was done just now")
}

// Who may not make roles is told so, and nothing is half done.
func TestRolesTakeCreateRole(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	admin := harness.Connect(t, server.URL("postgres"))
	exec(t, admin, "CREATE ROLE plain LOGIN")
	exec(t, admin, "CREATE DATABASE app OWNER plain")
	at := strings.Replace(server.URL("app"), "postgres@", "plain@", 1)
	_, err := sql.Migrate(t.Context(), at)
	require.NoError(t, err)
	require.ErrorContains(t, sql.GrantRoles(t.Context(), at), "permission denied to create role")
	require.Zero(t, value[int](t, admin, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'walhook%'"))

	// Once somebody has made them, the owner of the schema grants.
	for _, role := range sql.Roles() {
		exec(t, admin, "CREATE ROLE "+role)
	}
	require.NoError(t, sql.GrantRoles(t.Context(), at))
}
