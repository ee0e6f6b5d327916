package admin_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/test/harness"
)

// canary is in every secret and every header that is one.
const canary = "c4n4ry"

// office is a database with a store on it.
type office struct {
	*pgxpool.Pool
	store *admin.Store
}

func newOffice(t testing.TB) office {
	t.Helper()
	pool := harness.Connect(t, harness.Database(t))
	return office{pool, admin.New(pool, admin.Options{})}
}

// desk is that of a principal of one tenant, or of all when none is given.
func (o office) desk(tenant ...string) *admin.Desk {
	p := &admin.Principal{Name: "test", Scopes: admin.Scopes}
	if len(tenant) > 0 {
		p.Tenant = &tenant[0]
	}
	return o.store.For(p)
}

func (o office) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := o.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// text returns the one value that a query returns.
func (o office) text(t testing.TB, sql string, args ...any) (value string) {
	t.Helper()
	require.NoError(t, o.QueryRow(t.Context(), sql, args...).Scan(&value))
	return value
}

// webhook makes one with a secret, of a tenant.
func (o office) webhook(t testing.TB, tenant, name string) admin.Webhook {
	t.Helper()
	w, err := o.desk().CreateWebhook(t.Context(), admin.Change{
		Tenant: &tenant, Name: &name, URL: ptr("http://localhost/" + name), Secret: ptr(canary + "-secret"),
		Headers: &map[string]string{"X-Api-Key": canary + "-key", "X-Plain": "plain"},
	})
	require.NoError(t, err)
	return w
}

func ptr[T any](v T) *T { return &v }

// requireError requires an error of the caller, about that field, and no secret in it.
func requireError(t testing.TB, err error, kind admin.Kind, field string) admin.Error {
	t.Helper()
	var e *admin.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, kind, e.Kind, e.Error())
	require.Equal(t, field, e.Field, e.Error())
	require.NotEmpty(t, e.Message)
	require.NotContains(t, e.Error(), canary)
	return *e
}

// requireNoSecret requires that what is returned has no secret in it.
func requireNoSecret(t testing.TB, returned any) {
	t.Helper()
	text, err := json.Marshal(returned)
	require.NoError(t, err)
	require.NotContains(t, string(text), canary)
}

// attempts records n attempts of a webhook, each a second apart, the newest a second ago: every third fails with 500, and
// every seventh has no answer. Totals and samples are as a relay that recorded them would have left them, with a sample of
// two hours ago.
func (o office) attempts(t testing.TB, w admin.Webhook, n int) (event uuid.UUID) {
	t.Helper()
	require.NoError(t, o.QueryRow(t.Context(), "SELECT outbox.publish('patient.created', '{\"n\": 1}', tenant => $1)", w.Tenant).Scan(&event))
	tx, err := o.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	for _, sql := range []string{
		"SET LOCAL synchronous_commit = off",
		`INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status, error, response_body)
			SELECT now() - make_interval(secs => g), now() - make_interval(secs => g + 1), gen_random_uuid(), '` + event.String() + `', s.id, s.revision, 1, 1500, 1,
			       CASE WHEN g % 7 = 0 THEN NULL WHEN g % 3 = 0 THEN 500 ELSE 200 END,
			       CASE WHEN g % 7 = 0 THEN 'no answer' WHEN g % 3 = 0 THEN 'answered 500' END, 'said'
			FROM generate_series(1, $2::int) AS g, outbox.subscriptions s WHERE s.id = $1`,
		`INSERT INTO outbox.subscription_totals (subscription_id, attempts, succeeded, failed, delivered, total_us, latency, consecutive_failures, last_attempt_at)
			SELECT $1, $2::int, $2 - $2 / 3 - $2 / 7 + $2 / 21, $2 / 3 + $2 / 7 - $2 / 21, 0, $2::bigint * 1500,
			       array_fill(0::bigint, '{1}') || $2::bigint || array_fill(0::bigint, '{18}'), 0, now() - interval '1 second'`,
		`INSERT INTO outbox.subscription_samples (sampled_at, subscription_id, attempts, succeeded, failed, delivered, timeouts, total_us, latency)
			SELECT now() - interval '2 hours', subscription_id, attempts / 2, succeeded / 2, attempts / 2 - succeeded / 2, 0, 0, total_us / 2, array_fill(0::bigint, '{1}') || (attempts / 2) || array_fill(0::bigint, '{18}')
			FROM outbox.subscription_totals WHERE subscription_id = $1 AND $2::int > 0`,
	} {
		var args []any
		if sql[:3] == "INS" {
			args = []any{w.ID, n}
		}
		_, err := tx.Exec(t.Context(), sql, args...)
		require.NoError(t, err, sql)
	}
	require.NoError(t, tx.Commit(t.Context()))
	return event
}

// wait puts n rows for a webhook into the queue or among the dead letters.
func (o office) wait(t testing.TB, table string, w admin.Webhook, n int) {
	t.Helper()
	columns, values := ", next_attempt_at", ", now()"
	if table == "dead_letters" {
		columns, values = ", died_at, attempts", ", now(), 1"
	}
	o.exec(t, `INSERT INTO outbox.`+table+` (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index`+columns+`)
		SELECT gen_random_uuid(), $1, gen_random_uuid(), 'x', '{}', $3, false, now(), now(), '0/1', g`+values+`
		FROM generate_series(1, $2::int) AS g`, w.ID, n, w.Tenant)
}
