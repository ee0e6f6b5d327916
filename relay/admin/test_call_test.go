package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/test/harness"
)

// relayOnce does what a relay does with a test: it waits for the delivery, records its attempt and removes it from the queue.
func (o office) relayOnce(t *testing.T, w admin.Webhook) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, "the test is in the queue", func() bool {
		err := pgx.BeginFunc(t.Context(), o.Pool, func(tx pgx.Tx) error {
			tag, err := tx.Exec(t.Context(), `INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status, error, response_body)
				SELECT now(), committed_at, id, event_id, subscription_id, $2, 1, 2500, 1, 503, 'answered 503', 'closed' FROM outbox.deliveries WHERE subscription_id = $1`, w.ID, w.Revision)
			if err == nil && tag.RowsAffected() == 0 {
				return pgx.ErrNoRows
			}
			if err == nil {
				_, err = tx.Exec(t.Context(), "DELETE FROM outbox.deliveries WHERE subscription_id = $1", w.ID)
			}
			return err
		})
		require.True(t, err == nil || errors.Is(err, pgx.ErrNoRows), err)
		return err == nil
	})
}

func TestSendTest(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "clinic", "a")
	type result struct {
		call admin.Call
		err  error
	}
	got := make(chan result)
	go func() {
		c, err := o.desk("clinic").SendTest(t.Context(), w.ID, "patient.test", json.RawMessage(`{"n": 5}`), time.Minute)
		got <- result{c, err}
	}()
	o.relayOnce(t, w)
	r := <-got
	require.NoError(t, r.err)
	requireNoSecret(t, r.call)
	require.Equal(t, []any{w.ID, 1, 503, "closed", "answered 503", 2.5, false}, []any{r.call.WebhookID, r.call.Attempt, *r.call.Status, *r.call.ResponseBody, *r.call.Error, r.call.DurationMS, r.call.Succeeded})
	require.Contains(t, r.call.Payload, `"event_data": {"n": 5}`)
	require.Equal(t, "patient.test", r.call.RequestHeaders["X-Webhook-Event"])
}

func TestTestsThatNobodySends(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	_, err := o.desk().SendTest(t.Context(), w.ID, "", nil, time.Millisecond)
	require.Contains(t, requireError(t, err, admin.Conflict, "").Message, "within 1ms: is a relay running")
	require.Equal(t, `webhook.test {"test": true}`, o.text(t, "SELECT type || ' ' || payload FROM outbox.deliveries"), "by default")

	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client has gone")
	go func() {
		harness.Eventually(t, 10*time.Second, "the second test waits", func() bool {
			var n int
			return o.QueryRow(t.Context(), "SELECT count(*) FROM outbox.deliveries").Scan(&n) == nil && n == 2
		})
		cancel(gone)
	}()
	_, err = o.desk().SendTest(ctx, w.ID, "", nil, time.Minute)
	require.ErrorIs(t, err, gone)

	for field, send := range map[string]func() error{
		"event_type": func() error { _, err := o.desk().SendTest(t.Context(), w.ID, "a b", nil, time.Second); return err },
		"test_data": func() error {
			_, err := o.desk().SendTest(t.Context(), w.ID, "", json.RawMessage(`{"a":"\u0000"}`), time.Second)
			return err
		},
		"wait": func() error { _, err := o.desk().SendTest(t.Context(), w.ID, "", nil, 0); return err },
	} {
		requireError(t, send(), admin.Invalid, field)
	}
	_, err = o.desk().SetActive(t.Context(), w.ID, false)
	require.NoError(t, err)
	_, err = o.desk().SendTest(t.Context(), w.ID, "", nil, time.Second)
	require.Contains(t, requireError(t, err, admin.Conflict, "").Message, "activate it first")
	_, err = o.desk().SetActive(t.Context(), w.ID, true)
	require.NoError(t, err)
	o.exec(t, "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'filters' WHERE id = $1", w.ID)
	_, err = o.desk().SendTest(t.Context(), w.ID, "", nil, time.Second)
	require.Contains(t, requireError(t, err, admin.Conflict, "").Message, "is invalid, mend it first")
}
