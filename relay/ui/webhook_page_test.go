package ui_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestWebhookShowsStatisticsAndCalls(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "watched", "")
	page := "/webhooks/" + w.ID.String()
	good, bad := b.attempt(t, w.ID, true, "thanks"), b.attempt(t, w.ID, false, "the receiver answered 500")
	body := b.get(t, page).body
	for _, text := range []string{
		"/deliveries/" + good.String(), "/deliveries/" + bad.String(), "the receiver answered 500", ">failing<",
		"last hour", "last day", "last week", "all time", "50 %", "3 ms",
	} {
		require.Contains(t, body, text)
	}
	failed, success := b.get(t, page+"?outcome=failed").body, b.get(t, page+"?outcome=success").body
	require.Contains(t, failed, bad.String())
	require.NotContains(t, failed, good.String())
	require.Contains(t, success, good.String())
	require.NotContains(t, success, bad.String())
	require.Equal(t, http.StatusUnprocessableEntity, b.get(t, page+"?outcome=odd").status)
	require.Equal(t, http.StatusUnprocessableEntity, b.get(t, page+"?cursor=odd").status)
	require.Equal(t, http.StatusUnprocessableEntity, b.get(t, page+"/live?cursor=odd&outcome=odd").status)
}

func TestCallsAreListedInPages(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "busy", "")
	oldest := b.attempt(t, w.ID, true, "")
	for range 20 {
		b.attempt(t, w.ID, true, "")
	}
	page := "/webhooks/" + w.ID.String()
	first := b.get(t, page+"?outcome=success").body
	require.NotContains(t, first, oldest.String())
	_, next, found := strings.Cut(first, `rel="next" href="`)
	require.True(t, found)
	next, _, _ = strings.Cut(next, `#calls"`)
	second := b.get(t, strings.ReplaceAll(next, "&amp;", "&")).body
	require.Contains(t, second, oldest.String())
	require.Contains(t, second, `href="`+page+`?outcome=success#calls">Newest calls`)
}

// What is made just now shows its first delivery as it arrives, and turns red when one fails.
func TestOpenPageShowsCallsAsTheyAreMade(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "fresh", "")
	page := "/webhooks/" + w.ID.String()
	require.Contains(t, b.get(t, page).body, `hx-sse:connect="`+page+`/live"`)
	s := b.follow(t, page+"/live")
	first := s.until(t, "no traffic", "Nothing has been sent yet")
	require.NotContains(t, first, "<html")
	require.NotContains(t, first, "<form", "what is shared by all who look has nothing for some of them")
	good := b.attempt(t, w.ID, true, "")
	s.until(t, "badge ok", ">ok<", good.String())
	bad := b.attempt(t, w.ID, false, "answered 500")
	s.until(t, "badge bad", ">failing<", bad.String(), good.String())
	_, err := b.Exec(t.Context(), "DELETE FROM outbox.subscriptions WHERE id = $1", w.ID)
	require.NoError(t, err)
	s.until(t, "Somebody has deleted this webhook")
}

func TestOpenListShowsHealthAsItChanges(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "watched", "")
	require.Contains(t, b.get(t, "/webhooks?status=active").body, `hx-sse:connect="/webhooks/live?status=active"`)
	s := b.follow(t, "/webhooks/live?status=active")
	s.until(t, "watched", "no traffic")
	b.attempt(t, w.ID, false, "answered 500")
	s.until(t, "watched", ">failing<")
	_, err := b.desk().SetActive(t.Context(), w.ID, false)
	require.NoError(t, err)
	s.until(t, "There are none of these")
}

func TestWebhookIsSwitched(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "lamp", "")
	page := "/webhooks/" + w.ID.String()
	off := b.post(t, page+"/deactivate")
	require.Equal(t, http.StatusSeeOther, off.status)
	require.Equal(t, page, off.location)
	body := b.get(t, page).body
	require.Contains(t, body, ">inactive<")
	require.Contains(t, body, page+"/activate")
	require.Equal(t, http.StatusSeeOther, b.post(t, page+"/activate").status)
	now, err := b.desk().Webhook(t.Context(), w.ID)
	require.NoError(t, err)
	require.True(t, now.Active)
}

func TestSecretIsRotated(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "keyed", "")
	rotate := "/webhooks/" + w.ID.String() + "/rotate-secret"
	for typed, says := range map[string]string{"": "number of hours", "-1": "number of hours", "NaN": "number of hours", "1e9": "number of hours"} {
		p := b.post(t, rotate, "secret", secretCanary+"-new", "overlap_hours", typed)
		require.Equal(t, http.StatusUnprocessableEntity, p.status)
		require.Contains(t, p.body, says)
		require.NotContains(t, p.body, secretCanary)
	}
	for _, typed := range []string{"", secretCanary} { // none, and the one that it has
		p := b.post(t, rotate, "secret", typed, "overlap_hours", "1")
		require.Equal(t, http.StatusUnprocessableEntity, p.status)
		require.Contains(t, p.body, `id="rotate-secret-error"`)
		require.NotContains(t, p.body, secretCanary)
	}
	done := b.post(t, rotate, "secret", secretCanary+"-new", "overlap_hours", "1.5")
	require.Equal(t, http.StatusSeeOther, done.status, done.body)
	var secret, previous string
	var left time.Duration
	require.NoError(t, b.QueryRow(t.Context(), "SELECT secret, previous_secret, previous_secret_expires_at - now() FROM outbox.subscriptions WHERE id = $1", w.ID).
		Scan(&secret, &previous, &left))
	require.Equal(t, []string{secretCanary + "-new", secretCanary}, []string{secret, previous})
	require.InDelta(t, 90, left.Minutes(), 1)
	require.Contains(t, b.get(t, done.location).body, "the one before still signs until")
	_, err := b.Exec(t.Context(), "UPDATE outbox.subscriptions SET previous_secret_expires_at = now() - interval '1 second' WHERE id = $1", w.ID)
	require.NoError(t, err)
	require.NotContains(t, b.get(t, "/webhooks/"+w.ID.String()).body, "the one before", "once it is over")
}

func TestReplayIsAskedFor(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "again", "")
	replay := "/webhooks/" + w.ID.String() + "/replay"
	for _, c := range []struct{ since, until, field, says string }{
		{"", "", "since", "since when"}, {"yesterday", "", "since", "UTC"}, {"2020-01-01T00:00", "soon", "until", "UTC"},
		{"2020-01-02T00:00", "2020-01-01T00:00", "since", "before until"}, {"2999-01-01T00:00", "", "since", "future"},
	} {
		p := b.post(t, replay, "since", c.since, "until", c.until)
		require.Equal(t, http.StatusUnprocessableEntity, p.status, c)
		_, problem, found := strings.Cut(p.body, `id="replay-`+c.field+`-error">`)
		require.True(t, found, c)
		problem, _, _ = strings.Cut(problem, "</p>")
		require.Contains(t, problem, c.says)
	}
	done := b.post(t, replay, "since", "2020-01-01T10:30", "until", "2020-01-02T00:00:05", "only_failed", "yes")
	require.Equal(t, http.StatusSeeOther, done.status, done.body)
	var since, until time.Time
	var onlyFailed bool
	require.NoError(t, b.QueryRow(t.Context(), "SELECT since, until, only_failed FROM outbox.replays WHERE subscription_id = $1", w.ID).Scan(&since, &until, &onlyFailed))
	require.Equal(t, time.Date(2020, 1, 1, 10, 30, 0, 0, time.UTC), since.UTC())
	require.Equal(t, time.Date(2020, 1, 2, 0, 0, 5, 0, time.UTC), until.UTC())
	require.True(t, onlyFailed)
}

func TestWebhookIsDeletedOnceThatIsConfirmed(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "doomed", "")
	remove, revision := "/webhooks/"+w.ID.String()+"/delete", strconv.Itoa(w.Revision)
	unsure := b.post(t, remove, "revision", revision)
	require.Equal(t, http.StatusUnprocessableEntity, unsure.status)
	require.Contains(t, unsure.body, "tick the box")
	for _, stale := range []string{"", "0", strconv.Itoa(w.Revision + 1)} {
		p := b.post(t, remove, "confirm", "yes", "revision", stale)
		require.Equal(t, http.StatusPreconditionFailed, p.status)
		require.Contains(t, p.body, "Somebody else has changed")
	}
	done := b.post(t, remove, "confirm", "yes", "revision", revision)
	require.Equal(t, http.StatusSeeOther, done.status, done.body)
	require.Equal(t, "/webhooks", done.location)
	require.Equal(t, http.StatusNotFound, b.get(t, "/webhooks/"+w.ID.String()).status)
}

// relay answers the next delivery of a webhook in place of a relay.
func (b board) relay(ctx context.Context, t *testing.T, webhook uuid.UUID, succeeded bool, said string) {
	t.Helper()
	harnessTick := time.NewTicker(10 * time.Millisecond)
	defer harnessTick.Stop()
	for {
		var delivery uuid.UUID
		err := b.QueryRow(ctx, "SELECT id FROM outbox.deliveries WHERE subscription_id = $1", webhook).Scan(&delivery)
		if err == nil {
			b.record(ctx, t, delivery, webhook, succeeded, said)
			return
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return // the test has ended
		}
		select {
		case <-ctx.Done():
			return
		case <-harnessTick.C:
		}
	}
}

func TestTestShowsWhatCameBack(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "tried", "")
	page := "/webhooks/" + w.ID.String()
	for _, c := range []struct {
		succeeded bool
		said      string
		shows     []string
	}{
		{true, `{"thanks":true}`, []string{"The test was delivered", "200", "3 ms", "&#34;thanks&#34;: true"}},
		{false, "<script>alert(1)</script>", []string{"The test failed", "500", "&lt;script&gt;alert(1)"}},
	} {
		for _, htmx := range []bool{false, true} {
			r := formRequest(t, page+"/test", "event_type", "webhook.test", "test_data", `{"a": 1}`)
			if htmx {
				r.Header.Set("HX-Request", "true")
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); b.relay(ctx, t, w.ID, c.succeeded, c.said) }()
			p := b.do(t, r)
			cancel()
			<-done
			require.Equal(t, http.StatusOK, p.status, p.body)
			for _, text := range c.shows {
				require.Contains(t, p.body, text)
			}
			require.Contains(t, p.body, `href="/deliveries/`)
			require.Equal(t, !htmx, strings.Contains(p.body, "<html"))
			requireEscaped(t, p)
		}
	}
}

func TestTestSaysWhyItIsNotSent(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "tried", "")
	test := "/webhooks/" + w.ID.String() + "/test"
	for _, c := range []struct{ eventType, data, field string }{
		{"", "{}", "event_type"}, {"with space", "{}", "event_type"}, {"webhook.test", "{", "test_data"}, {"webhook.test", `"\u0000"`, "test_data"},
	} {
		p := b.post(t, test, "event_type", c.eventType, "test_data", c.data)
		require.Equal(t, http.StatusUnprocessableEntity, p.status, c)
		require.Contains(t, p.body, `id="test-`+c.field+`-error"`, c)
		require.Equal(t, c.data, inputsOf(p.body)["test_data"])
	}
	_, err := b.desk().SetActive(t.Context(), w.ID, false)
	require.NoError(t, err)
	p := b.post(t, test, "event_type", "webhook.test", "test_data", "{}")
	require.Equal(t, http.StatusConflict, p.status)
	require.Contains(t, p.body, "is not active")
	var sent int
	require.NoError(t, b.QueryRow(t.Context(), "SELECT count(*) FROM outbox.deliveries").Scan(&sent))
	require.Zero(t, sent)
}

// Nobody else's scopes or tenants come with what is rendered once for all.
func TestSharedPartsHaveNothingForSome(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	b.webhook(t, "hers", "acme")
	b.webhook(t, "his", "rival")
	acme := b.as(t, []admin.Scope{admin.ScopeRead}, "acme")
	all := b.follow(t, "/webhooks/live").until(t, "hers", "his")
	require.NotContains(t, all, "<form")
	require.NotContains(t, all, "<button")
	require.NotContains(t, acme.follow(t, "/webhooks/live").until(t, "hers"), "his</strong>")
}
