package admin_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func (o office) events(t testing.TB, desk *admin.Desk, f admin.EventFilter) (found []admin.Event) {
	t.Helper()
	found, _ = all(t, func(cursor string) (admin.Page[admin.Event], error) {
		f.Limit, f.Cursor = 3, cursor
		return desk.Events(t.Context(), f)
	})
	for i := 1; i < len(found); i++ {
		require.Greater(t, found[i-1].ID.String(), found[i].ID.String(), "the newest first, each once")
	}
	return found
}

func TestEvents(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	began := time.Now().Add(-30 * 24 * time.Hour)
	for i := range 20 {
		at := began.AddDate(0, 0, i)
		o.event(t, []string{"a", "b"}[i%2], []string{"patient.created", "patient.updated", "patients"}[i%3], `{"n": 1.50}`, at)
		table := []string{"events", "emitted_events"}[i%2]
		o.exec(t, "INSERT INTO outbox."+table+" (id, type, tenant, key, source, correlation_id, headers) VALUES ($1, 'x', 'a', 'other', 's', 'd', '{\"h\": \"1\"}')",
			idAt(at.Add(time.Hour)))
	}
	found := o.events(t, o.desk(), admin.EventFilter{})
	require.Len(t, found, 40)
	newest, second := found[0], found[1]
	require.Equal(t, admin.Event{ID: newest.ID, Type: "x", Payload: "{}", Key: ptr("other"), Tenant: "a", Source: ptr("s"), CorrelationID: ptr("d"),
		Headers: `{"h": "1"}`, CreatedAt: newest.CreatedAt, Emitted: true}, newest)
	require.Equal(t, `{"n": 1.50}`, second.Payload)
	require.Nil(t, second.Source)
	require.False(t, second.Emitted)
	for _, c := range []struct {
		f    admin.EventFilter
		want int
	}{
		{admin.EventFilter{Type: "patient.created"}, 7}, {admin.EventFilter{Type: "patient.*"}, 14}, {admin.EventFilter{Type: "*"}, 40},
		{admin.EventFilter{Type: "patient*"}, 0}, {admin.EventFilter{Type: "patient."}, 0}, {admin.EventFilter{Type: "%"}, 0},
		{admin.EventFilter{Key: "k"}, 20}, {admin.EventFilter{CorrelationID: "d"}, 20}, {admin.EventFilter{Key: "k", CorrelationID: "d"}, 0},
		{admin.EventFilter{Key: "' OR ''='"}, 0},
	} {
		require.Len(t, o.events(t, o.desk(), c.f), c.want, "%+v", c.f)
	}
	require.Len(t, o.events(t, o.desk("a"), admin.EventFilter{}), 30)
	require.Len(t, o.events(t, o.desk("b"), admin.EventFilter{}), 10)
	require.Len(t, o.events(t, o.desk("b"), admin.EventFilter{Type: "patient.*"}), 7)
	require.Empty(t, o.events(t, o.desk(""), admin.EventFilter{}))

	for field, f := range map[string]admin.EventFilter{
		"type": {Type: "\xff"}, "key": {Key: "\x00"}, "correlation_id": {CorrelationID: strings.Repeat("x", 1025)},
		"cursor": {Cursor: "eA"}, "limit": {Limit: -1},
	} {
		_, err := o.desk().Events(t.Context(), f)
		requireError(t, err, admin.Invalid, field)
	}
}

// Searching costs the same however long the table is, and finds what is rare page by page.
func TestSearchesAmongEventsAreBounded(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.exec(t, `INSERT INTO outbox.events (id, type, tenant) SELECT outbox.uuidv7(), CASE WHEN g = 1 THEN 'rare' ELSE 'x' END, 'a' FROM generate_series(1, 30000) AS g`)
	o.exec(t, `INSERT INTO outbox.emitted_events (id, type, tenant) SELECT outbox.uuidv7(), 'x', 'b' FROM generate_series(1, 15000) AS g`)
	for _, c := range []struct {
		desk *admin.Desk
		kind string
		want int
	}{{o.desk(), "rare", 1}, {o.desk(), "none", 0}, {o.desk("a"), "rare", 1}, {o.desk("b"), "rare", 0}} {
		found, pages := all(t, func(cursor string) (admin.Page[admin.Event], error) {
			return c.desk.Events(t.Context(), admin.EventFilter{Type: c.kind, Cursor: cursor})
		})
		require.Len(t, found, c.want)
		require.Equal(t, 3, pages, "of 20,000 rows each")
	}
	o.exec(t, "ANALYZE outbox.events")
	var plans []string
	_, err := admin.New(explained{o.Pool, t, &plans}, admin.Options{}).For(&admin.Principal{}).Events(t.Context(), admin.EventFilter{})
	require.NoError(t, err)
	require.NotContains(t, plans[0], "Seq Scan on events_p"+time.Now().UTC().Format("20060102"), "by the primary key")
}

func TestListedPayloadsAreCut(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	short := o.event(t, "", "x", `"`+strings.Repeat("x", 64<<10-2)+`"`, time.Now())
	long := o.event(t, "", "x", `"`+strings.Repeat("ä", 700_000)+`"`, time.Now())
	for _, e := range o.events(t, o.desk(), admin.EventFilter{}) {
		require.Equal(t, e.ID == long, strings.HasSuffix(e.Payload, "…"))
		require.LessOrEqual(t, len(e.Payload), 64<<10+3)
	}
	e, _, err := o.desk().Event(t.Context(), short)
	require.NoError(t, err)
	require.Len(t, e.Payload, 64<<10)
	e, _, err = o.desk().Event(t.Context(), long)
	require.NoError(t, err)
	require.InDelta(t, 1<<20+3, len(e.Payload), 2)
}

func TestAnEventAndItsDeliveries(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	now := time.Now()
	names := []string{"delivered", "failed", "waiting", "dead", "nothing", "deleted"}
	event := o.event(t, "a", "x", `{"n": 12345678901234567890.10}`, now)
	another := o.event(t, "a", "x", `{}`, now) // of the same millisecond
	deliveries := map[string]sent{}
	for _, name := range names {
		w := o.webhook(t, "a", name)
		attempts := map[string][]string{"delivered": {"refused", ""}, "failed": {"refused"}, "waiting": {"refused"}, "deleted": {""}}[name]
		deliveries[name] = o.deliver(t, event, w, now, attempts...)
		o.deliver(t, another, w, now, "refused")
	}
	o.put(t, "deliveries", deliveries["waiting"])
	o.put(t, "dead_letters", deliveries["dead"])
	o.remove(t, deliveries["deleted"].webhook)
	for _, desk := range []*admin.Desk{o.desk(), o.desk("a")} {
		e, found, err := desk.Event(t.Context(), event)
		require.NoError(t, err)
		require.Equal(t, `{"n": 12345678901234567890.10}`, e.Payload)
		require.Len(t, found, 5)
		for _, d := range found {
			name := d.Webhook
			if name == "" {
				name = "deleted"
			}
			require.Equal(t, deliveries[name].delivery, d.ID)
			require.Equal(t, deliveries[name].webhook.ID, d.WebhookID)
			require.Equal(t, []any{event, "x"}, []any{d.EventID, d.Type})
			require.Empty(t, d.Calls)
			if name != "deleted" {
				require.Equal(t, name, d.State)
			}
		}
	}
	for _, id := range []uuid.UUID{event, uuid.New(), uuid.Nil} {
		_, _, err := o.desk("b").Event(t.Context(), id)
		require.Equal(t, "there is no event "+id.String()+", or it is no longer kept", requireError(t, err, admin.NotFound, "").Message)
	}
}

// A test's event belongs to its webhook's tenant.
func TestTestEventsHaveATenant(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "a", "w")
	o.exec(t, "SELECT outbox.send_test($1)", w.ID)
	require.Empty(t, o.events(t, o.desk("b"), admin.EventFilter{}))
	found := o.events(t, o.desk("a"), admin.EventFilter{})
	require.Len(t, found, 1)
	_, deliveries, err := o.desk("a").Event(t.Context(), found[0].ID)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(deliveries, func(d admin.Delivery) bool { return d.WebhookID == w.ID }))
}
