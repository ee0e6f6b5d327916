package sql_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// connect returns a pool to a database that has the schema.
func connect(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return harness.Connect(t, harness.Database(t))
}

func exec(t *testing.T, db *pgxpool.Pool, query string, args ...any) {
	t.Helper()
	_, err := db.Exec(t.Context(), query, args...)
	require.NoError(t, err, query)
}

func value[T any](t *testing.T, db *pgxpool.Pool, query string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, db.QueryRow(t.Context(), query, args...).Scan(&v), query)
	return v
}

func texts(t *testing.T, db *pgxpool.Pool, query string, args ...any) []string {
	t.Helper()
	rows, err := db.Query(t.Context(), query, args...)
	require.NoError(t, err, query)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err, query)
	return all
}

func TestMigrationsAreContiguous(t *testing.T) {
	t.Parallel()
	all, err := sql.Migrations()
	require.NoError(t, err)
	require.NotEmpty(t, all)
	for i, m := range all {
		require.EqualValues(t, i+1, m.Number, m.Name)
		require.NotEmpty(t, m.Name)
		require.NotEmpty(t, strings.TrimSpace(m.Up), m.Name)
		require.NotEmpty(t, strings.TrimSpace(m.Down), m.Name)
	}
	require.EqualValues(t, len(all), sql.Latest())
}

func TestTextHoldsEveryMigrationInOrder(t *testing.T) {
	t.Parallel()
	all, err := sql.Migrations()
	require.NoError(t, err)
	rest := sql.Text()
	for _, m := range all {
		at := strings.Index(rest, m.Up)
		require.GreaterOrEqual(t, at, 0, "migration %d", m.Number)
		require.Contains(t, rest[:at], fmt.Sprintf("-- %04d %s", m.Number, m.Name))
		rest = rest[at+len(m.Up):]
	}
}

func TestMigrateMayBeRepeated(t *testing.T) {
	t.Parallel()
	url := harness.EmptyDatabase(t)
	all, err := sql.Migrations()
	require.NoError(t, err)
	var names []string
	for _, m := range all {
		names = append(names, fmt.Sprintf("%04d_%s", m.Number, m.Name))
	}
	applied, err := sql.Migrate(t.Context(), url)
	require.NoError(t, err)
	require.Equal(t, names, applied)

	before := catalog(t, harness.Connect(t, url))
	applied, err = sql.Migrate(t.Context(), url)
	require.NoError(t, err)
	require.Empty(t, applied)
	require.Equal(t, before, catalog(t, harness.Connect(t, url)))
}

// Several processes that start at once migrate once.
func TestConcurrentMigrations(t *testing.T) {
	t.Parallel()
	const processes = 4
	url := harness.EmptyDatabase(t)
	type result struct {
		applied []string
		err     error
	}
	results := make(chan result, processes)
	for range processes {
		go func() {
			applied, err := sql.Migrate(t.Context(), url)
			results <- result{applied, err}
		}()
	}
	var applied []string
	for range processes {
		r := <-results
		require.NoError(t, r.err)
		applied = append(applied, r.applied...)
	}
	require.Len(t, applied, int(sql.Latest()), "each migration once: %v", applied)
}

// Who applies the printed script by other means gets the same schema.
func TestTextMakesTheSameSchema(t *testing.T) {
	t.Parallel()
	byHand := harness.Connect(t, harness.EmptyDatabase(t))
	_, err := byHand.Exec(t.Context(), sql.Text(), pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	require.Equal(t, catalog(t, connect(t)), catalog(t, byHand))
}

// What psql applied, walhook init continues from: goose's own table is there and says so.
func TestMigrateContinuesFromText(t *testing.T) {
	t.Parallel()
	const columns = `SELECT format('%s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull, attidentity)
		FROM pg_attribute WHERE attrelid = 'outbox.schema_version'::regclass AND attnum > 0 ORDER BY attnum`
	const versions = "SELECT format('%s %s', version_id, is_applied) FROM outbox.schema_version ORDER BY id"
	url := harness.EmptyDatabase(t)
	byHand, byGoose := harness.Connect(t, url), connect(t)
	_, err := byHand.Exec(t.Context(), sql.Text(), pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	for _, query := range []string{columns, versions} {
		require.Equal(t, texts(t, byGoose, query), texts(t, byHand, query))
	}
	applied, err := sql.Migrate(t.Context(), url)
	require.NoError(t, err)
	require.Empty(t, applied)
}

func TestDownRemovesEverything(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	all, err := sql.Migrations()
	require.NoError(t, err)
	for i := len(all) - 1; i >= 0; i-- {
		_, err := db.Exec(t.Context(), all[i].Down, pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err, all[i].Name)
	}
	require.Empty(t, catalog(t, db))
	_, err = sql.Migrate(t.Context(), url)
	require.NoError(t, err, "and back again")
}

// A failed migration leaves nothing, not even half of itself, and the error names the cause.
func TestFailedMigrationLeavesNothing(t *testing.T) {
	t.Parallel()
	url := harness.EmptyDatabase(t)
	db := harness.Connect(t, url)
	exec(t, db, "CREATE SCHEMA outbox; CREATE TABLE outbox.queue (mine int)") // where the migration wants a view
	before := catalog(t, db)
	_, err := sql.Migrate(t.Context(), url)
	require.ErrorContains(t, err, "migrate: ")
	require.ErrorContains(t, err, `"queue" already exists`)
	require.Equal(t, before, catalog(t, db))
}

// catalog lists what the schema holds: columns, constraints, indexes, triggers and functions. What differs
// between the days on which it was made (partitions) and goose's own table are left out.
func catalog(t *testing.T, db *pgxpool.Pool) []string {
	t.Helper()
	return texts(t, db, `
		SELECT format('column %s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
		WHERE c.relnamespace = to_regnamespace('outbox') AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0
			AND c.relname <> 'schema_version' AND c.relname !~ '_p[0-9]{8}$'
		UNION ALL SELECT format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
		WHERE connamespace = to_regnamespace('outbox') AND conrelid::regclass::text !~ 'schema_version|_p[0-9]{8}$'
		UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'outbox' AND tablename !~ 'schema_version|_p[0-9]{8}$'
		UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
		WHERE c.relnamespace = to_regnamespace('outbox') AND NOT tgisinternal
		UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = to_regnamespace('outbox')
		UNION ALL SELECT pg_get_viewdef(oid) FROM pg_class WHERE relnamespace = to_regnamespace('outbox') AND relkind = 'v'
		ORDER BY 1`)
}
