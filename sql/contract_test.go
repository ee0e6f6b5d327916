package sql_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// What users type and read: the columns of the public contract, which may be joined by others but not go.
func TestContractColumns(t *testing.T) {
	t.Parallel()
	db := connect(t)
	for name, columns := range map[string]string{
		"events": "id type payload key tenant source correlation_id headers created_at",
		"subscriptions": `id tenant name description url event_types filters headers secret previous_secret previous_secret_expires_at
			signature payload_format payload_version max_retries retry_delay timeout ordering max_in_flight rate_limit batch_size
			batch_wait is_active created_at updated_at`,
		"replication_lag": `slot_name active wal_status lag_bytes retained_bytes lag_seconds checkpoint_lsn confirmed_lsn queue_depth
			oldest_pending_seconds`,
		"subscription_stats": `subscription_id deliveries succeeded failed pending dead success_rate mean_ms p95_ms last_attempt_at
			consecutive_failures`,
		"calls": `delivery_id event_id subscription_id attempt url method request_headers payload status response_body duration_ms
			error attempted_at`,
		"queue":        "delivery_id next_attempt_at last_error",
		"replays":      "id subscription_id since until only_failed state requested_at matched queued error finished_at",
		"event_types":  "name number description schema",
		"dead_letters": "id subscription_id event_id last_error",
	} {
		has := texts(t, db, "SELECT column_name FROM information_schema.columns WHERE table_schema = 'outbox' AND table_name = $1", name)
		require.Subset(t, has, strings.Fields(columns), name)
	}
}

// What a user gets who writes only what must be written.
func TestContractDefaults(t *testing.T) {
	t.Parallel()
	db := connect(t)
	rows, err := db.Query(t.Context(), `INSERT INTO outbox.subscriptions (name, url) VALUES ('n', 'http://localhost') RETURNING
		to_jsonb(subscriptions) - '{id,created_at,updated_at,revision,status,status_reason}'::text[]`)
	require.NoError(t, err)
	got, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[map[string]any])
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"name": "n", "url": "http://localhost", "tenant": "", "description": "", "event_types": []any{}, "filters": map[string]any{},
		"headers": map[string]any{}, "secret": nil, "previous_secret": nil, "previous_secret_expires_at": nil, "signature": "sha256",
		"payload_format": "envelope", "payload_version": 1.0, "max_retries": 3.0, "retry_delay": "00:01:00", "timeout": "00:00:30",
		"ordering": "none", "max_in_flight": 16.0, "rate_limit": nil, "batch_size": 1.0, "batch_wait": "00:00:00", "is_active": true,
		"verification": "none", "verified_at": nil, "verification_error": nil, "allowed_rate": nil, "backfill_from": nil,
	}, got)
}

// publish is an insert: it returns the id of the row that it made.
func TestPublish(t *testing.T) {
	t.Parallel()
	db := connect(t)
	id := value[string](t, db, `SELECT outbox.publish('patient.created', '{"n": 1.10}', key => 'k', tenant => 't', source => 's',
		correlation_id => 'c', headers => '{"h": "v"}')::text`)
	require.Equal(t, "patient.created|{\"n\": 1.10}|k|t|s|c|{\"h\": \"v\"}", value[string](t, db,
		"SELECT concat_ws('|', type, payload, key, tenant, source, correlation_id, headers) FROM outbox.events WHERE id::text = $1", id))
	id = value[string](t, db, "SELECT outbox.publish('x', '[]', tenant => NULL, headers => NULL)::text")
	require.Equal(t, "|{}", value[string](t, db, "SELECT concat_ws('|', tenant, headers, key, source) FROM outbox.events WHERE id::text = $1", id))
}

// emit refuses what the table would refuse, and leaves no row.
func TestEmit(t *testing.T) {
	t.Parallel()
	db := connect(t)
	require.Len(t, value[string](t, db, `SELECT outbox.emit('patient.created', '{}')::text`), 36)
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.events"))
	for call, says := range map[string]string{
		`'with space', '{}'`:                    "with space",
		`NULL, '{}'`:                            "event type",
		`'x.*', '{}'`:                           "x.*",
		`'x', NULL`:                             "payload is null",
		`'x', '{}', key => ''`:                  "key has 0 bytes",
		`'x', '{}', key => repeat('k', 1025)`:   "key has 1025 bytes",
		`'x', '{}', tenant => repeat('t', 256)`: "255 bytes",
		`'x', '{}', headers => '[]'`:            "headers is a JSON array",
		`'x', to_jsonb(repeat('p', 10485760))`:  "10 MB",
	} {
		_, err := db.Exec(t.Context(), "SELECT outbox.emit("+call+")")
		require.ErrorContains(t, err, says, call)
	}
}

// Ids sort by time, so that partitions of a day hold the rows of that day.
func TestUUIDv7(t *testing.T) {
	t.Parallel()
	db := connect(t)
	ids := texts(t, db, "SELECT outbox.uuidv7()::text FROM generate_series(1, 1000)")
	for i, id := range ids {
		require.Equal(t, "7", id[14:15], "version of %s", id)
		require.Contains(t, "89ab", id[19:20], "variant of %s", id)
		if i > 0 { // the clock has microseconds
			require.GreaterOrEqual(t, id[:18], ids[i-1][:18])
		}
	}
	require.True(t, value[bool](t, db, `SELECT outbox.uuid_floor(at) <= id AND id < outbox.uuid_floor(at + '2 s')
		FROM (SELECT clock_timestamp() - interval '1 s' AS at, outbox.uuidv7() AS id) AS x`))
	require.Equal(t, "0192f0a6-0000-0000-0000-000000000000"[:8], value[string](t, db,
		"SELECT left(outbox.uuid_floor(to_timestamp((x'0192f0a60000'::bigint)::float8 / 1000))::text, 8)"))
}

// Percentiles come from the histogram: the upper bound of the bucket in which the share is reached.
func TestLatencyQuantile(t *testing.T) {
	t.Parallel()
	db := connect(t)
	for _, tt := range []struct {
		latency, share string
		want           float64
	}{
		{"{10}", "0.95", 1},
		{"{94,6}", "0.95", 2},
		{"{95,5}", "0.95", 1},
		{"{0,0,1}", "0.5", 4},
		{"{50,0,0,50}", "0.5", 1},
		{"{50,0,0,50}", "0.51", 8},
	} {
		require.InDelta(t, tt.want, value[float64](t, db, "SELECT outbox.latency_quantile($1::text::bigint[], $2::text::float8)", tt.latency, tt.share),
			1e-9, "%+v", tt)
	}
	require.Nil(t, value[*float64](t, db, "SELECT outbox.latency_quantile('{0,0}', 0.95)"))
	require.Equal(t, "{11,22,33,44,55,66,77,88,99,110,121,132,143,154,165,176,187,198,209,220}", value[string](t, db, `SELECT outbox.add_counts(
		array_agg(n ORDER BY n), array_agg(10 * n ORDER BY n))::text FROM generate_series(1, 20::bigint) AS n`))
}

// The calls log shows no credentials.
func TestRedactHeaders(t *testing.T) {
	t.Parallel()
	db := connect(t)
	for _, name := range []string{"Authorization", "X-Auth", "X-Api-Key", "cookie", "X-Session-Id", "X-Pass", "X-Passphrase", "X-Hub-Signature",
		"X-Credentials", "X-Secret", "X-Token"} {
		require.JSONEq(t, `{"`+name+`": "[redacted]", "Accept": "text/plain"}`, value[string](t, db,
			"SELECT outbox.redact_headers(jsonb_build_object($1::text, 'hidden', 'Accept', 'text/plain'))::text", name))
	}
}
