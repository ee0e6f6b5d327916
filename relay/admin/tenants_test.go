package admin_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// Whoever is of another tenant finds nothing and changes nothing, and cannot tell a row that is there from one that is not.
func TestWebhooksOfOtherTenants(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "clinic", "a")
	o.attempts(t, w, 50)
	state := func() string {
		return o.text(t, `SELECT concat((SELECT jsonb_agg(s ORDER BY id) FROM outbox.subscriptions s), (SELECT count(*) FROM outbox.replays),
			(SELECT count(*) FROM outbox.deliveries), (SELECT count(*) FROM outbox.emitted_events))`)
	}
	before := state()
	for name, call := range map[string]func(*admin.Desk, uuid.UUID) error{
		"Webhook": func(d *admin.Desk, id uuid.UUID) error { _, err := d.Webhook(t.Context(), id); return err },
		"UpdateWebhook": func(d *admin.Desk, id uuid.UUID) error {
			_, err := d.UpdateWebhook(t.Context(), id, admin.Change{Name: ptr("taken")}, 0)
			return err
		},
		"UpdateWebhook at a revision": func(d *admin.Desk, id uuid.UUID) error {
			_, err := d.UpdateWebhook(t.Context(), id, admin.Change{Name: ptr("taken")}, w.Revision+1)
			return err
		},
		"UpdateWebhook with nothing": func(d *admin.Desk, id uuid.UUID) error {
			_, err := d.UpdateWebhook(t.Context(), id, admin.Change{}, 0)
			return err
		},
		"DeleteWebhook":               func(d *admin.Desk, id uuid.UUID) error { return d.DeleteWebhook(t.Context(), id, 0) },
		"DeleteWebhook at a revision": func(d *admin.Desk, id uuid.UUID) error { return d.DeleteWebhook(t.Context(), id, w.Revision+1) },
		"SetActive":                   func(d *admin.Desk, id uuid.UUID) error { _, err := d.SetActive(t.Context(), id, false); return err },
		"RotateSecret":                func(d *admin.Desk, id uuid.UUID) error { _, err := d.RotateSecret(t.Context(), id, "x", 0); return err },
		"SendTest": func(d *admin.Desk, id uuid.UUID) error {
			_, err := d.SendTest(t.Context(), id, "", nil, time.Second)
			return err
		},
		"Replay": func(d *admin.Desk, id uuid.UUID) error {
			_, err := d.Replay(t.Context(), id, time.Now().Add(-time.Hour), time.Time{}, false)
			return err
		},
		"WebhookStats": func(d *admin.Desk, id uuid.UUID) error { _, err := d.WebhookStats(t.Context(), id); return err },
		"Calls": func(d *admin.Desk, id uuid.UUID) error {
			_, err := d.Calls(t.Context(), id, admin.CallFilter{})
			return err
		},
	} {
		unknown := uuid.New()
		for _, d := range []*admin.Desk{o.desk("lab"), o.desk("")} {
			foreign := requireError(t, call(d, w.ID), admin.NotFound, "")
			none := requireError(t, call(d, unknown), admin.NotFound, "")
			require.Equal(t, "there is no webhook "+w.ID.String(), foreign.Message, name)
			require.Equal(t, "there is no webhook "+unknown.String(), none.Message, name)
		}
		require.Equal(t, before, state(), name)
	}
	for _, c := range []struct {
		desk *admin.Desk
		want int
	}{{o.desk("lab"), 0}, {o.desk(""), 0}, {o.desk("clinic"), 1}, {o.desk(), 1}} {
		page, err := c.desk.Webhooks(t.Context(), nil, 0, "")
		require.NoError(t, err)
		require.Len(t, page.Items, c.want)
		healths, err := c.desk.Healths(t.Context(), nil, 0, "")
		require.NoError(t, err)
		require.Len(t, healths.Items, c.want)
		stats, err := c.desk.SystemStats(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 50*c.want, stats.Total)
		require.EqualValues(t, 25*c.want, stats.LastHour.Total)
		require.EqualValues(t, c.want, *stats.Webhooks)
	}
}

// Who is bound to a tenant makes rows of that tenant only.
func TestWebhooksAreMadeInTheOwnTenant(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for _, tenant := range []*string{nil, ptr("clinic")} {
		w, err := o.desk("clinic").CreateWebhook(t.Context(), admin.Change{Tenant: tenant, Name: ptr("a"), URL: ptr("http://localhost/")})
		require.NoError(t, err)
		require.Equal(t, "clinic", w.Tenant)
	}
	_, err := o.desk("clinic").CreateWebhook(t.Context(), admin.Change{Tenant: ptr("lab"), Name: ptr("a"), URL: ptr("http://localhost/")})
	require.Contains(t, requireError(t, err, admin.Invalid, "tenant").Message, `"lab"`)
	require.Equal(t, "2", o.text(t, "SELECT count(*)::text FROM outbox.subscriptions"))
}

// A cursor is no key: one of another tenant's list gives nothing of that tenant.
func TestCursorsOfOtherTenants(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	theirs := []admin.Webhook{o.webhook(t, "lab", "a"), o.webhook(t, "lab", "b")}
	own := o.webhook(t, "clinic", "c")
	o.attempts(t, theirs[0], 10)
	o.attempts(t, own, 10)
	page, err := o.desk("lab").Webhooks(t.Context(), nil, 1, "")
	require.NoError(t, err)
	mine, err := o.desk("clinic").Webhooks(t.Context(), nil, 0, page.Next)
	require.NoError(t, err)
	require.Empty(t, mine.Items)

	calls, err := o.desk("lab").Calls(t.Context(), theirs[0].ID, admin.CallFilter{Limit: 5})
	require.NoError(t, err)
	got, err := o.desk("clinic").Calls(t.Context(), own.ID, admin.CallFilter{Cursor: calls.Next})
	require.NoError(t, err)
	text, err := json.Marshal(got)
	require.NoError(t, err)
	require.NotContains(t, string(text), theirs[0].ID.String())
	for _, c := range got.Items {
		require.Equal(t, own.ID, c.WebhookID)
	}
}
