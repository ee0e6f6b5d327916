package sql_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Events are measured by their text: a jsonb number of 16 bytes can be 131 KB of it, and compression hides even
// that. One that is too large would stop logical decoding for good.
func TestEventsThatAreSmallOnlyWhenStored(t *testing.T) {
	t.Parallel()
	db := connect(t)
	exec(t, db, `CREATE TABLE staging (n int, payload jsonb);
		INSERT INTO staging SELECT n, (SELECT jsonb_agg(1e131000::numeric) FROM generate_series(1, n)) FROM unnest('{2000,20000}'::int[]) AS n`)
	require.Less(t, value[int](t, db, "SELECT pg_column_size(payload) FROM staging WHERE n = 2000"), 800, "compressed, it looks small")
	for from, says := range map[string]string{
		"jsonb_agg(1e131000::numeric) AS payload FROM generate_series(1, 420)": "10_mb",
		"jsonb_agg(1e131000::numeric) AS payload FROM generate_series(1, 90)":  "10_mb",
		"payload FROM staging WHERE n = 2000":                                  "10_mb",
	} {
		_, err := db.Exec(t.Context(), "INSERT INTO outbox.events (type, payload) SELECT 'x', "+from)
		require.ErrorContains(t, err, says, from)
		_, err = db.Exec(t.Context(), "SELECT outbox.emit('x', payload) FROM (SELECT "+from+") AS f")
		require.Error(t, err, from)
		_, err = db.Exec(t.Context(), "INSERT INTO outbox.events (type, headers) SELECT 'x', jsonb_build_object('h', payload) FROM (SELECT "+from+") AS f")
		require.Error(t, err, from)
	}
	// 2.6 GB, more than a text can have; the versions word it differently.
	_, err := db.Exec(t.Context(), "INSERT INTO outbox.events (type, payload) SELECT 'x', payload FROM staging WHERE n = 20000")
	require.ErrorContains(t, err, "SQLSTATE 54000")
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.events"))
}

// The largest text that fits the size below which nothing is measured is within the limit.
func TestEventsThatAreNotMeasured(t *testing.T) {
	t.Parallel()
	db := connect(t)
	const largest = "SELECT jsonb_agg(round(9e131071::numeric, 16383)) AS payload FROM generate_series(1, %)"
	fits := func(n string) bool {
		return value[bool](t, db, "SELECT pg_column_size(payload) + pg_column_size('{}'::jsonb) < 800 FROM ("+strings.Replace(largest, "%", n, 1)+") AS f")
	}
	require.True(t, fits("49"))
	require.False(t, fits("50"))
	require.Less(t, value[int](t, db, "SELECT octet_length(payload::text) FROM ("+strings.Replace(largest, "%", "49", 1)+") AS f"), 10485760)
	exec(t, db, "INSERT INTO outbox.events (type, payload) SELECT 'x', payload FROM ("+strings.Replace(largest, "%", "49", 1)+") AS f")
}
