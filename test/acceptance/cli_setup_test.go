package acceptance_test

import (
	"context"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func TestInitSaysWhatItDid(t *testing.T) {
	database, slot := harness.EmptyDatabase(t), "walhook_"+uuid.NewString()[:8]
	env := []string{"DATABASE_URL=" + database}
	first := run(t, env, "init", "--slot", slot)
	require.Zero(t, first.code, first.stderr)
	for _, step := range []string{"applied migration 0001_", "created publication walhook_events", "created publication walhook_config", "created replication slot " + slot} {
		require.Contains(t, first.stdout, step)
	}
	again := run(t, env, "init", "--slot", slot)
	require.Zero(t, again.code, again.stderr)
	require.Equal(t, "everything is there already\n", again.stdout)
	o := run(t, append(env, "WALHOOK_SLOT="+slot, "WALHOOK_JSON=true"), "init").object(t)
	require.Equal(t, map[string]any{"done": []any{}, "slot": slot}, o)

	other := run(t, env, "init", "--slot", "another")
	require.Equal(t, 2, other.code)
	require.Contains(t, other.stderr, "--slot "+slot, "a second slot would deliver everything twice")
}

// The printed schema is the schema: psql can apply it.
func TestInitPrintsItsSQL(t *testing.T) {
	r := run(t, nil, "init", "--print-sql")
	require.Zero(t, r.code, r.stderr)
	db := harness.Connect(t, harness.EmptyDatabase(t))
	_, err := db.Exec(t.Context(), r.stdout)
	require.NoError(t, err)
	_, err = db.Exec(t.Context(), "SELECT outbox.publish('a.b', '{}')")
	require.NoError(t, err)
}

func TestServerWithoutLogicalReplicationIsRefused(t *testing.T) {
	server := harness.StartServer(t, "", map[string]string{"wal_level": "replica"})
	env := []string{"DATABASE_URL=" + server.URL("postgres")}
	for _, command := range []string{"init", "run"} {
		r := run(t, env, command)
		require.Equal(t, 2, r.code, r.stderr)
		require.Contains(t, r.stderr, "wal_level is replica")
		require.Contains(t, r.stderr, "ALTER SYSTEM SET wal_level = 'logical'")
	}
}

func TestRunWithoutInitIsRefused(t *testing.T) {
	for name, database := range map[string]string{"no schema": harness.EmptyDatabase(t), "no slot": harness.Database(t)} {
		t.Run(name, func(t *testing.T) {
			for _, command := range []string{"run", "status"} {
				r := run(t, []string{"DATABASE_URL=" + database}, command)
				require.Equal(t, 2, r.code, r.stderr)
				require.Contains(t, r.stderr, "run walhook init")
			}
		})
	}
}

func TestMissingDatabaseIsRefused(t *testing.T) {
	missing := "DATABASE_URL=" + harness.Postgres(t).URL("no_such_database")
	for _, args := range [][]string{{"init"}, {"run"}, {"status"}, {"trigger", "a.b"}} {
		r := run(t, []string{missing}, args...)
		require.Equal(t, 2, r.code, r.stderr)
		require.Contains(t, r.stderr, "no_such_database")
	}
}

// newRole makes a role that may log in and nothing else. It is dropped when the test ends; databases that
// know it have to be made later, so that they go first.
func newRole(t *testing.T, name string) string {
	t.Helper()
	do := func(sql string) {
		conn, err := pgx.Connect(context.Background(), harness.Postgres(t).URL("postgres"))
		require.NoError(t, err)
		defer func() { _ = conn.Close(context.Background()) }()
		_, err = conn.Exec(context.Background(), sql)
		require.NoError(t, err, sql)
	}
	do(`CREATE ROLE "` + name + `" LOGIN`)
	t.Cleanup(func() { do(`DROP ROLE "` + name + `"`) })
	return name
}

// remedy is the SQL that an error says to run.
var remedy = regexp.MustCompile(`run ((?:GRANT|ALTER ROLE)[^,:\n]*)`)

// An ordinary role is told what it lacks, right by right. The remedies work as they are printed, and then it
// can do everything.
func TestOrdinaryRoleIsToldItsRemedies(t *testing.T) {
	role := newRole(t, "Clinic-"+uuid.NewString()[:8])
	database, slot := harness.EmptyDatabase(t), "walhook_"+uuid.NewString()[:8]
	admin := harness.Connect(t, database)
	do := func(sql string) {
		t.Helper()
		_, err := admin.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	u, err := url.Parse(database)
	require.NoError(t, err)
	u.User = url.User(role)
	env := []string{"DATABASE_URL=" + u.String(), "WALHOOK_SLOT=" + slot}

	for _, want := range []string{"GRANT CREATE ON DATABASE", "ALTER ROLE"} {
		r := run(t, env, "init")
		require.Equal(t, 2, r.code, r.stderr)
		match := remedy.FindStringSubmatch(r.stderr)
		require.NotNil(t, match, r.stderr)
		require.True(t, strings.HasPrefix(match[1], want), r.stderr)
		do(match[1])
	}
	r := run(t, env, "init")
	require.Zero(t, r.code, r.stderr)
	r = run(t, env, "trigger", "a.b")
	require.Zero(t, r.code, r.stderr)
	r = run(t, env, "status")
	require.Zero(t, r.code, r.stderr)

	do(`ALTER ROLE "` + role + `" NOREPLICATION`)
	r = run(t, env, "run")
	require.Equal(t, 2, r.code, r.stderr)
	require.Contains(t, r.stderr, "ALTER ROLE")
}

func TestRoleWithoutRightsOnTheOutboxIsRefused(t *testing.T) {
	role := newRole(t, "stranger_"+uuid.NewString()[:8])
	db := newDatabase(t)
	db.do(`ALTER ROLE "` + role + `" REPLICATION`)
	u, err := url.Parse(db.url)
	require.NoError(t, err)
	u.User = url.User(role)
	for _, args := range [][]string{{"run"}, {"status"}, {"trigger", "a.b"}} {
		r := run(t, []string{"DATABASE_URL=" + u.String(), "WALHOOK_SLOT=" + db.slot}, args...)
		require.Equal(t, 2, r.code, r.stderr)
		require.Contains(t, r.stderr, "use the role that ran walhook init, or grant it")
	}
}
