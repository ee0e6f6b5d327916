package admin_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestDeliveriesAreFoundWhereTheyAre(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "a", "w")
	now := time.Now()
	event := func() uuid.UUID { return o.event(t, "a", "patient.created", `{"n": 1}`, now) }
	delivered := o.deliver(t, event(), w, now, "refused", "")
	failed := o.deliver(t, event(), w, now, "", "refused")
	waiting := o.deliver(t, event(), w, now, "refused")
	o.put(t, "deliveries", waiting)
	fresh := o.deliver(t, event(), w, now)
	o.put(t, "deliveries", fresh)
	dead := o.deliver(t, event(), w, now, "refused", "refused")
	o.put(t, "dead_letters", dead)
	for _, c := range []struct {
		sent
		state, lastError string
		calls            int
	}{
		{delivered, "delivered", "", 2}, {failed, "failed", "refused", 2}, {waiting, "waiting", "it failed", 1},
		{fresh, "waiting", "it failed", 0}, {dead, "dead", "it failed", 2},
	} {
		for _, desk := range []*admin.Desk{o.desk(), o.desk("a")} {
			d, err := desk.Delivery(t.Context(), c.delivery)
			require.NoError(t, err)
			require.Equal(t, c.state, d.State)
			require.Equal(t, c.lastError, d.LastError)
			require.Equal(t, c.event, d.EventID)
			require.Equal(t, w.ID, d.WebhookID)
			require.Equal(t, "w", d.Webhook)
			require.Equal(t, "patient.created", d.Type)
			require.Equal(t, c.state == "waiting", d.NextAttemptAt != nil)
			require.Len(t, d.Calls, c.calls)
			for i, call := range d.Calls {
				require.Equal(t, c.calls-i, call.Attempt, "the newest first")
				require.Equal(t, call.Error == nil, call.Succeeded)
				require.Contains(t, call.Payload, `"event_data": {"n": 1}`)
				require.False(t, call.PayloadTruncated)
				require.Equal(t, "http://localhost/w", call.URL)
			}
			requireNoSecret(t, d)
		}
		_, err := o.desk("b").Delivery(t.Context(), c.delivery)
		foreign := requireError(t, err, admin.NotFound, "").Message
		_, err = o.desk("b").Delivery(t.Context(), uuid.Nil)
		none := requireError(t, err, admin.NotFound, "").Message
		require.Equal(t, strings.ReplaceAll(none, uuid.Nil.String(), c.delivery.String()), foreign, "nothing tells that it is there")
	}
}

// The tenant of what a deleted webhook left is the event's; where the event is gone too, nobody's.
func TestDeliveriesOfADeletedWebhook(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "a", "w")
	now := time.Now()
	past := o.deliver(t, o.event(t, "a", "x", "{}", now), w, now, "refused")
	dead := o.deliver(t, o.event(t, "a", "x", "{}", now), w, now)
	o.put(t, "dead_letters", dead)
	o.remove(t, w)
	for range 2 {
		for _, s := range []sent{past, dead} {
			d, err := o.desk("a").Delivery(t.Context(), s.delivery)
			require.NoError(t, err)
			require.Empty(t, d.Webhook)
			_, err = o.desk("b").Delivery(t.Context(), s.delivery)
			requireError(t, err, admin.NotFound, "")
			requireError(t, o.desk("b").Redeliver(t.Context(), s.delivery), admin.NotFound, "")
			requireError(t, o.desk("a").Redeliver(t.Context(), s.delivery), admin.NotFound, "")
		}
	}
	o.exec(t, "DELETE FROM outbox.events")
	_, err := o.desk("a").Delivery(t.Context(), past.delivery)
	requireError(t, err, admin.NotFound, "")
	d, err := o.desk().Delivery(t.Context(), past.delivery)
	require.NoError(t, err)
	require.Empty(t, d.Type)
	_, err = o.desk("a").Delivery(t.Context(), dead.delivery)
	require.NoError(t, err, "a dead letter knows its tenant")
}

// A webhook that has moved to another tenant takes no deliveries along.
func TestDeliveriesStayWithTheirTenant(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "a", "w")
	s := o.deliver(t, o.event(t, "a", "x", "{}", time.Now()), w, time.Now(), "refused")
	o.put(t, "dead_letters", s)
	o.exec(t, "UPDATE outbox.subscriptions SET tenant = 'b'")
	for _, tenant := range []string{"a", "b"} {
		_, err := o.desk(tenant).Delivery(t.Context(), s.delivery)
		requireError(t, err, admin.NotFound, "")
		page, err := o.desk(tenant).DeadLetters(t.Context(), admin.DeadFilter{})
		require.NoError(t, err)
		require.Empty(t, page.Items)
		n, err := o.desk(tenant).RedeliverDead(t.Context(), admin.DeadFilter{}, 0)
		require.NoError(t, err)
		require.Zero(t, n)
	}
}

// One page shows a hundred attempts, and stays within some megabytes whatever the payload is.
func TestCallsOfADeliveryAreBounded(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "w")
	now := time.Now()
	s := o.deliver(t, o.event(t, "", "x", `"`+strings.Repeat("ä", 600_000)+`"`, now), w, now, make([]string, 120)...)
	d, err := o.desk().Delivery(t.Context(), s.delivery)
	require.NoError(t, err)
	require.Len(t, d.Calls, 100)
	require.Equal(t, 120, d.Calls[0].Attempt)
	size := 0
	for _, c := range d.Calls {
		require.True(t, c.PayloadTruncated)
		size += len(c.Payload)
	}
	require.InDelta(t, 1<<20, len(d.Calls[0].Payload), 2)
	require.Less(t, size, 25<<20)
}

// The days before the event are not looked at.
func TestOldAttemptsAreNotLookedAt(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	for days := 1; days < 4; days++ {
		day := today.AddDate(0, 0, -days)
		o.exec(t, fmt.Sprintf("CREATE TABLE outbox.attempts_p%s PARTITION OF outbox.attempts FOR VALUES FROM ('%s') TO ('%s')",
			day.Format("20060102"), day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)))
	}
	w := o.webhook(t, "", "w")
	at := today.AddDate(0, 0, -2).Add(12 * time.Hour)
	s := o.deliver(t, o.event(t, "", "x", "{}", at), w, at, "refused")
	var plans []string
	desk := admin.New(explained{o.Pool, t, &plans}, admin.Options{}).For(&admin.Principal{})
	d, err := desk.Delivery(t.Context(), s.delivery)
	require.NoError(t, err)
	require.Len(t, d.Calls, 1)
	_, deliveries, err := desk.Event(t.Context(), s.event)
	require.NoError(t, err)
	require.Len(t, deliveries, 1)
	require.Contains(t, strings.Join(plans, "\n"), "attempts_p"+today.AddDate(0, 0, -2).Format("20060102"))
	require.NotContains(t, strings.Join(plans, "\n"), "attempts_p"+today.AddDate(0, 0, -3).Format("20060102"))
}

// An id that somebody chose holds no time: the attempts are found all the same.
func TestIDsThatHoldNoTime(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "w")
	for _, id := range []string{"ffffffff-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000001"} {
		event := uuid.MustParse(id)
		o.exec(t, "INSERT INTO outbox.events (id, type) VALUES ($1, 'x')", event)
		s := o.deliver(t, event, w, time.Now(), "")
		d, err := o.desk().Delivery(t.Context(), s.delivery)
		require.NoError(t, err)
		require.Len(t, d.Calls, 1)
		_, deliveries, err := o.desk().Event(t.Context(), event)
		require.NoError(t, err)
		require.Len(t, deliveries, 1)
	}
}

func TestRedeliver(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "a", "w")
	now := time.Now()
	past := o.deliver(t, o.event(t, "a", "x", "{}", now), w, now, "")
	requireError(t, o.desk("b").Redeliver(t.Context(), past.delivery), admin.NotFound, "")
	require.Equal(t, "0", o.text(t, "SELECT count(*)::text FROM outbox.deliveries"))
	require.NoError(t, o.desk("a").Redeliver(t.Context(), past.delivery))
	require.Equal(t, past.delivery.String(), o.text(t, "SELECT id::text FROM outbox.deliveries"))
	require.NoError(t, o.desk().Redeliver(t.Context(), past.delivery), "it waits: now is soon enough")
	o.exec(t, "UPDATE outbox.deliveries SET lease_owner = 'x', next_attempt_at = now() + interval '1 minute'")
	requireError(t, o.desk().Redeliver(t.Context(), past.delivery), admin.Conflict, "")
	requireError(t, o.desk().Redeliver(t.Context(), uuid.New()), admin.NotFound, "")
	o.exec(t, "DELETE FROM outbox.deliveries")
	o.exec(t, "DELETE FROM outbox.events")
	requireError(t, o.desk().Redeliver(t.Context(), past.delivery), admin.NotFound, "")
}
