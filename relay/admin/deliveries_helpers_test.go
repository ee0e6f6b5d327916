package admin_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// idAt is a UUIDv7 of a moment.
func idAt(at time.Time) uuid.UUID {
	id := uuid.Must(uuid.NewV7())
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// sent is a delivery as a relay leaves it.
type sent struct {
	event, delivery uuid.UUID
	webhook         admin.Webhook
}

// event inserts one of a moment.
func (o office) event(t testing.TB, tenant, kind, payload string, at time.Time) uuid.UUID {
	t.Helper()
	id := idAt(at)
	o.exec(t, "INSERT INTO outbox.events (id, type, payload, key, tenant, correlation_id, created_at) VALUES ($1, $2, $3::text::jsonb, 'k', $4, 'c', $5)",
		id, kind, payload, tenant, at)
	return id
}

// deliver records attempts of an event for a webhook, the first at the given moment and the others seconds later; an error
// that is empty is a success.
func (o office) deliver(t testing.TB, event uuid.UUID, w admin.Webhook, at time.Time, errors ...string) sent {
	t.Helper()
	s := sent{event: event, webhook: w}
	require.NoError(t, o.QueryRow(t.Context(), "SELECT outbox.delivery_id($1, $2)", event, w.ID).Scan(&s.delivery))
	for i, e := range errors {
		o.exec(t, `INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status, error)
			VALUES ($1, $2, $3, $4, $5, $6, 1, 1500, $7, 200, nullif($8, ''))`,
			at.Add(time.Duration(i)*time.Second), at, s.delivery, event, w.ID, w.Revision, i+1, e)
	}
	return s
}

// put puts a delivery into the queue or among the dead letters.
func (o office) put(t testing.TB, table string, s sent) {
	t.Helper()
	columns, values := ", next_attempt_at", ", now() + interval '1 hour'"
	if table == "dead_letters" {
		columns, values = ", attempts", ", 4"
	}
	o.exec(t, `INSERT INTO outbox.`+table+` (id, subscription_id, event_id, type, payload, key, tenant, emitted, created_at, committed_at, commit_lsn, commit_index, last_error`+columns+`)
		SELECT $1, $2, e.id, e.type, e.payload::text, e.key, e.tenant, false, e.created_at, e.created_at, '0/1', 1, 'it failed'`+values+`
		FROM outbox.events e WHERE e.id = $3`, s.delivery, s.webhook.ID, s.event)
}

// remove deletes a webhook, and leaves what it had as it is.
func (o office) remove(t testing.TB, w admin.Webhook) {
	t.Helper()
	o.exec(t, "DELETE FROM outbox.subscriptions WHERE id = $1", w.ID)
}

// explained is the store with every query explained by the server.
type explained struct {
	admin.DB
	t     testing.TB
	plans *[]string
}

func (e explained) look(sql string, args []any) {
	rows, err := e.DB.Query(context.WithoutCancel(e.t.Context()), "EXPLAIN "+sql, args...)
	require.NoError(e.t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(e.t, err)
	*e.plans = append(*e.plans, strings.Join(lines, "\n"))
}

func (e explained) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	e.look(sql, args)
	return e.DB.Query(ctx, sql, args...)
}

func (e explained) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	e.look(sql, args)
	return e.DB.QueryRow(ctx, sql, args...)
}

// all reads every page of a list.
func all[T any](t testing.TB, page func(cursor string) (admin.Page[T], error)) (items []T, pages int) {
	t.Helper()
	for cursor := ""; ; {
		p, err := page(cursor)
		require.NoError(t, err)
		require.NotNil(t, p.Items)
		items, pages = append(items, p.Items...), pages+1
		if cursor = p.Next; cursor == "" {
			return items, pages
		}
		require.Less(t, pages, 1000)
	}
}

func raw(text string) json.RawMessage { return json.RawMessage(text) }
