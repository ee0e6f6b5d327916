package admin_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// allCalls reads page by page, and requires that none is larger than its limit.
func allCalls(t *testing.T, d *admin.Desk, id uuid.UUID, f admin.CallFilter) (all []admin.Call, pages int) {
	t.Helper()
	for {
		page, err := d.Calls(t.Context(), id, f)
		require.NoError(t, err)
		if f.Limit > 0 {
			require.LessOrEqual(t, len(page.Items), f.Limit)
		}
		all, pages = append(all, page.Items...), pages+1
		if f.Cursor = page.Next; f.Cursor == "" {
			return all, pages
		}
	}
}

func TestCallsLog(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "clinic", "a")
	other := o.webhook(t, "clinic", "b")
	event := o.attempts(t, w, 100)
	o.attempts(t, other, 100)

	all, pages := allCalls(t, o.desk("clinic"), w.ID, admin.CallFilter{Limit: 30})
	require.Len(t, all, 100)
	require.Equal(t, 4, pages)
	requireNoSecret(t, all)
	seen := map[uuid.UUID]bool{}
	for i, c := range all {
		require.False(t, seen[c.DeliveryID], "twice")
		seen[c.DeliveryID] = true
		require.Equal(t, w.ID, c.WebhookID)
		require.True(t, i == 0 || !c.AttemptedAt.After(all[i-1].AttemptedAt), "the newest first")
	}
	first := all[0]
	require.Equal(t, []any{event, 1, "http://localhost/a", "POST", 200, "said", 1.5, true}, []any{first.EventID, first.Attempt, first.URL, first.Method,
		*first.Status, *first.ResponseBody, first.DurationMS, first.Succeeded})
	require.Nil(t, first.Error)
	require.Equal(t, admin.Redacted, first.RequestHeaders["X-Api-Key"])
	require.Equal(t, "plain", first.RequestHeaders["X-Plain"])
	require.Equal(t, "patient.created", first.RequestHeaders["X-Webhook-Event"])
	require.Contains(t, first.Payload, `"event_data": {"n": 1}`)
	require.False(t, first.PayloadTruncated)
	failed := all[2]
	require.Equal(t, []any{500, "answered 500", false}, []any{*failed.Status, *failed.Error, failed.Succeeded})
	require.Nil(t, all[6].Status, "no answer")
}

func TestFiltersOfCalls(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	o.attempts(t, w, 210) // of which 30 had no answer, 60 had 500 and 120 succeeded
	all, _ := allCalls(t, o.desk(), w.ID, admin.CallFilter{Limit: 500})
	for _, c := range []struct {
		filter admin.CallFilter
		want   int
	}{
		{admin.CallFilter{}, 210},
		{admin.CallFilter{Outcome: "success"}, 120},
		{admin.CallFilter{Outcome: "failed"}, 90},
		{admin.CallFilter{Outcome: "failed", Limit: 90}, 90},
		{admin.CallFilter{Status: 500, Limit: 7}, 60},
		{admin.CallFilter{Status: 500, Outcome: "success"}, 0},
		{admin.CallFilter{Status: 404}, 0},
		{admin.CallFilter{Since: all[9].AttemptedAt}, 10},
		{admin.CallFilter{Until: all[9].AttemptedAt, Limit: 199}, 200},
		{admin.CallFilter{Since: all[9].AttemptedAt, Until: all[4].AttemptedAt, Limit: 2}, 5},
	} {
		got, _ := allCalls(t, o.desk(), w.ID, c.filter)
		require.Len(t, got, c.want, "%+v", c.filter)
	}
	for field, f := range map[string]admin.CallFilter{
		"outcome": {Outcome: "ok"}, "status": {Status: 99}, "limit": {Limit: -1}, "cursor": {Cursor: "W10"},
		"since": {Since: time.Now(), Until: time.Now().Add(-time.Hour)},
	} {
		_, err := o.desk().Calls(t.Context(), w.ID, f)
		requireError(t, err, admin.Invalid, field)
	}
}

// Attempts of the same moment are neither lost nor repeated between pages.
func TestCallsOfTheSameMoment(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	o.attempts(t, w, 20)
	o.exec(t, "UPDATE outbox.attempts SET attempted_at = date_trunc('hour', attempted_at)")
	o.exec(t, "INSERT INTO outbox.attempts SELECT (jsonb_populate_record(a, '{\"attempt\": 2}')).* FROM outbox.attempts a")
	all, pages := allCalls(t, o.desk(), w.ID, admin.CallFilter{Limit: 3})
	require.Len(t, all, 40)
	require.Equal(t, 14, pages)
	seen := map[string]bool{}
	for _, c := range all {
		seen[c.DeliveryID.String()+" "+string(rune('0'+c.Attempt))] = true
	}
	require.Len(t, seen, 40)
}

func TestLargePayloadsAreCut(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	event := o.attempts(t, w, 3)
	o.exec(t, "UPDATE outbox.events SET payload = to_jsonb(repeat('é', 100000)) WHERE id = $1", event)
	all, _ := allCalls(t, o.desk(), w.ID, admin.CallFilter{})
	require.True(t, all[0].PayloadTruncated)
	require.InDelta(t, 64<<10, len(all[0].Payload), 1)
	require.True(t, strings.HasSuffix(all[0].Payload, "é"), "no half character")

	o.exec(t, "DELETE FROM outbox.events")
	all, _ = allCalls(t, o.desk(), w.ID, admin.CallFilter{})
	require.Empty(t, all[0].Payload, "the event is no longer kept")
	require.Equal(t, 200, *all[0].Status)
}
