package ui_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestWebhooksAreListedWithTheirHealth(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	failing, fine := b.webhook(t, "failing-one", ""), b.webhook(t, "fine-one", "")
	quiet, off, broken := b.webhook(t, "quiet-one", ""), b.webhook(t, "off-one", ""), b.webhook(t, "broken-one", "")
	b.attempt(t, failing.ID, true, "")
	b.attempt(t, failing.ID, false, "answered 500")
	b.attempt(t, fine.ID, true, "")
	_, err := b.desk().SetActive(t.Context(), off.ID, false)
	require.NoError(t, err)
	_, err = b.Exec(t.Context(), "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'the filter is odd' WHERE id = $1", broken.ID)
	require.NoError(t, err)
	_, err = b.Exec(t.Context(), "INSERT INTO outbox.alerts (alert, subscription_id, message) VALUES ('failing', $1, 'half of all fail')", failing.ID)
	require.NoError(t, err)

	all := b.get(t, "/webhooks")
	require.Equal(t, http.StatusOK, all.status)
	require.NotContains(t, all.body, secretCanary)
	for id, words := range map[uuid.UUID][]string{
		failing.ID: {`badge bad`, ">failing<", "half of all fail", "1 failed in a row", "attempts: 2"},
		fine.ID:    {`badge ok`, ">ok<", "100 %"},
		quiet.ID:   {`badge idle`, ">no traffic<", "never"},
		off.ID:     {`badge idle`, ">inactive<"},
		broken.ID:  {`badge bad`, ">invalid<", "the filter is odd"},
	} {
		row := rowOf(t, all.body, id)
		for _, word := range words {
			require.Contains(t, row, word)
		}
	}
	active, inactive := b.get(t, "/webhooks?status=active").body, b.get(t, "/webhooks?status=inactive").body
	require.Contains(t, active, fine.ID.String())
	require.NotContains(t, active, off.ID.String())
	require.Contains(t, inactive, off.ID.String())
	require.NotContains(t, inactive, fine.ID.String())
	require.Equal(t, http.StatusUnprocessableEntity, b.get(t, "/webhooks?status=odd").status)
	require.Equal(t, http.StatusUnprocessableEntity, b.get(t, "/webhooks?cursor=odd").status)
}

// rowOf cuts a webhook's row out of the list.
func rowOf(t *testing.T, body string, id uuid.UUID) string {
	t.Helper()
	_, row, found := strings.Cut(body, `<tr id="webhook-`+id.String())
	require.True(t, found, "row of %s", id)
	row, _, _ = strings.Cut(row, "</tr>")
	return row
}

func TestWebhooksAreListedInPages(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	for i := range 26 {
		b.webhook(t, fmt.Sprintf("webhook-%02d", i), "")
	}
	first := b.get(t, "/webhooks?status=active").body
	require.Contains(t, first, "webhook-25")
	require.NotContains(t, first, "webhook-00")
	_, next, found := strings.Cut(first, `rel="next" href="`)
	require.True(t, found)
	next, _, _ = strings.Cut(next, `"`)
	second := b.get(t, strings.ReplaceAll(next, "&amp;", "&")).body
	require.Contains(t, second, "webhook-00")
	require.NotContains(t, second, "webhook-25")
	require.Contains(t, second, `<a href="/webhooks?status=active">First page`)
	require.NotContains(t, second, `rel="next"`)
}

func TestOtherTenantsWebhooksAreUnknown(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	mine, theirs := b.webhook(t, "mine-one", "acme"), b.webhook(t, "theirs-one", "rival")
	acme := b.as(t, []admin.Scope{admin.ScopeManage}, "acme")
	list := acme.get(t, "/webhooks").body
	require.Contains(t, list, "mine-one")
	require.NotContains(t, list, "theirs-one")
	require.Equal(t, http.StatusOK, acme.get(t, "/webhooks/"+mine.ID.String()).status)

	for _, id := range []string{theirs.ID.String(), uuid.NewString(), "no-id", "%00"} {
		for _, path := range []string{"", "/edit", "/live"} {
			p := acme.get(t, "/webhooks/"+id+path)
			require.Equal(t, http.StatusNotFound, p.status, "%s %s", id, path)
			require.NotContains(t, p.body, "theirs-one")
		}
		for _, action := range []string{"edit", "test", "activate", "deactivate", "rotate-secret", "replay", "delete"} {
			p := acme.post(t, "/webhooks/"+id+"/"+action, webhookForm("revision", fmt.Sprint(theirs.Revision), "confirm", "yes",
				"event_type", "webhook.test", "test_data", "{}", "secret", "new", "overlap_hours", "1", "since", "2020-01-01T00:00")...)
			require.Equal(t, http.StatusNotFound, p.status, "%s %s", id, action)
			require.NotContains(t, p.body, "theirs-one")
		}
	}
	now, err := b.desk().Webhook(t.Context(), theirs.ID)
	require.NoError(t, err)
	require.Equal(t, theirs, now)
	require.NotContains(t, acme.get(t, "/webhooks/new").body, `name="tenant"`)
	require.Contains(t, b.get(t, "/webhooks/new").body, `name="tenant"`)
}

func TestReadersSeeNoButtons(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "watched", "")
	page := "/webhooks/" + w.ID.String()
	reader := b.as(t, []admin.Scope{admin.ScopeRead})
	require.NotContains(t, reader.get(t, "/webhooks").body, "/webhooks/new")
	shown := reader.get(t, page)
	require.Equal(t, http.StatusOK, shown.status)
	require.NotContains(t, strings.ReplaceAll(shown.body, page+"/live", ""), page+"/")
	require.Equal(t, 1, strings.Count(shown.body, "<form"), "but for that to log out there is no form")
	for _, path := range []string{"/webhooks/new", page + "/edit"} {
		require.Equal(t, http.StatusForbidden, reader.get(t, path).status, path)
	}
	for _, path := range []string{
		"/webhooks", page + "/edit", page + "/test", page + "/activate", page + "/deactivate", page + "/rotate-secret", page + "/replay", page + "/delete",
	} {
		require.Equal(t, http.StatusForbidden, reader.post(t, path, webhookForm("confirm", "yes", "revision", "1")...).status, path)
	}
	now, err := b.desk().Webhook(t.Context(), w.ID)
	require.NoError(t, err)
	require.Equal(t, w, now)
	manager := b.get(t, page).body
	for _, action := range []string{"edit", "test", "deactivate", "rotate-secret", "replay", "delete"} {
		require.Contains(t, manager, page+"/"+action)
	}
}

// markup is what must never reach a browser as it is.
var markup = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'><svg/onload=alert(1)>`, `</textarea><script>alert(2)</script>`,
	`{{.Data}}<b onmouseover=alert(1)>`, `javascript:alert(1)//`,
}

func requireEscaped(t *testing.T, p page) {
	t.Helper()
	for _, raw := range []string{"<script>alert", "<img src=x", "<svg/onload", "<b onmouseover", `href="javascript:`} {
		require.NotContains(t, p.body, raw)
	}
}

func TestMarkupIsEscapedEverywhere(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	for i, bad := range markup {
		name := fmt.Sprintf("%d %s", i, bad)
		event := strings.ReplaceAll(strings.ReplaceAll(bad, " ", "/"), "*", "")
		made := b.post(t, "/webhooks", webhookForm("name", name, "description", bad, "events", event, "headers", "X-Odd: "+bad,
			"filters", fmt.Sprintf(`{"odd": %q}`, bad))...)
		require.Equal(t, http.StatusSeeOther, made.status, made.body)
		id := uuid.MustParse(strings.TrimPrefix(made.location, "/webhooks/"))
		b.attempt(t, id, false, bad)
		_, err := b.Exec(t.Context(), "INSERT INTO outbox.alerts (alert, subscription_id, message) VALUES ('failing', $1, $2)", id, bad)
		require.NoError(t, err)
		for _, path := range []string{"/webhooks", made.location, made.location + "/edit"} {
			p := b.get(t, path)
			require.Equal(t, http.StatusOK, p.status)
			require.Contains(t, p.body, fmt.Sprintf("%d ", i))
			requireEscaped(t, p)
		}
		refused := b.post(t, "/webhooks", webhookForm("name", name, "description", bad, "url", bad, "events", bad, "headers", bad,
			"filters", bad, "tenant", bad, "max_retries", bad, "rate_limit", bad, "signature", bad, "backfill_from", bad)...)
		require.Equal(t, http.StatusUnprocessableEntity, refused.status)
		requireEscaped(t, refused)
		for _, action := range []string{"test", "rotate-secret", "replay"} {
			p := b.post(t, made.location+"/"+action, "event_type", bad, "test_data", bad, "secret", "x", "overlap_hours", bad, "since", bad, "until", bad)
			require.Equal(t, http.StatusUnprocessableEntity, p.status, action)
			requireEscaped(t, p)
		}
		query := url.Values{"status": {bad}, "cursor": {bad}, "outcome": {bad}}.Encode()
		requireEscaped(t, b.get(t, "/webhooks?"+query))
		requireEscaped(t, b.get(t, made.location+"?"+query))
	}
}
