package ui_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestADeliveryShowsEveryAttempt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	hook := l.webhook(t, "", "Ward 7")
	event := l.event(t, published{Type: "patient.created", Payload: `{"amount": 12345678901234567890.10}`})
	l.attempted(t, event, hook, 1, 0, "connection refused", "")
	id := l.attempted(t, event, hook, 2, 503, "status 503", `{"try":"later"}`)

	body := l.page(t, "/deliveries/"+id.String())
	for _, want := range []string{
		"Ward 7", "/webhooks/" + hook.String(), "patient.created", "/events/" + event.String(), "POST http://localhost/hook",
		"connection refused", "no answer", "status 503", "&#34;try&#34;: &#34;later&#34;", "12345678901234567890.10", "12 ms", "X-Shown",
		`<span class="badge bad">failed</span>`, `action="/deliveries/` + id.String() + `/redeliver"`,
	} {
		require.Contains(t, body, want)
	}
	require.NotContains(t, body, "canary")
	newest, oldest := strings.Index(body, `id="attempt-2"`), strings.Index(body, `id="attempt-1"`)
	require.Positive(t, newest)
	require.Less(t, newest, oldest, "the newest first")
	require.Contains(t, body[newest:newest+60], " open>")
	require.NotContains(t, body[oldest:oldest+60], " open>")
}

func TestADeliveryIsSentAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	hook := l.webhook(t, "", "hook")
	id := l.attempted(t, l.event(t, published{Type: "a"}), hook, 1, 200, "", "ok")
	require.Contains(t, l.page(t, "/deliveries/"+id.String()), `<span class="badge ok">delivered</span>`)

	body := l.follow(t, l.post(t, l.all, "/deliveries/"+id.String()+"/redeliver", nil))
	require.Contains(t, body, "on its way again")
	require.Contains(t, body, `<span class="badge warn">waiting</span>`)
	require.Equal(t, 1, l.count(t, "SELECT count(*) FROM outbox.deliveries WHERE id = $1", id))
}

func TestWhoOnlyReadsSendsNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	reader := l.token(t, nil, admin.ScopeRead)
	hook := l.webhook(t, "", "hook")
	event := l.event(t, published{Type: "a"})
	id := l.died(t, event, hook, "status 500")
	for _, path := range []string{"/deliveries/" + id.String(), "/dead-letters", "/events", "/events/" + event.String(), "/event-types", "/slot"} {
		status, body := l.get(t, reader, path)
		require.Equal(t, http.StatusOK, status, path)
		_, main, _ := strings.Cut(body, "<main")
		require.NotContains(t, main, `method="post"`, path)
	}
	for _, path := range []string{"/deliveries/" + id.String() + "/redeliver", "/dead-letters/redeliver", "/events", "/event-types"} {
		require.Equal(t, http.StatusForbidden, l.post(t, reader, path, nil).Code, path)
	}
	require.Equal(t, 0, l.count(t, "SELECT count(*) FROM outbox.deliveries"))
}

func TestAnotherTenantsThingsAreNotThere(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	stranger := l.token(t, ptr("b"), admin.ScopeRead, admin.ScopeManage, admin.ScopePublish)
	hook := l.webhook(t, "a", "canary hook")
	event := l.event(t, published{Type: "canary.type", Tenant: "a", Key: "k", Correlation: "c"})
	id := l.died(t, event, hook, "canary error")

	paths := []string{"/deliveries/" + id.String(), "/deliveries/" + id.String() + "/live", "/events/" + event.String(),
		"/deliveries/" + uuid.NewString(), "/events/" + uuid.NewString(), "/deliveries/x", "/events/x", "/deliveries/%00", "/events/..%2f..%2fslot"}
	for _, path := range paths {
		status, body := l.get(t, stranger, path)
		require.Equal(t, http.StatusNotFound, status, path)
		require.NotContains(t, body, "canary", path)
	}
	require.Equal(t, http.StatusNotFound, l.post(t, stranger, "/deliveries/"+id.String()+"/redeliver", nil).Code)
	for _, path := range []string{"/dead-letters", "/dead-letters?webhook=" + hook.String(), "/events", "/events?key=k", "/events?correlation=c"} {
		status, body := l.get(t, stranger, path)
		require.Equal(t, http.StatusOK, status, path)
		require.NotContains(t, body, "canary", path)
	}
	for _, path := range []string{"/slot", "/slot/live", "/slot/forecast", "/slot/doctor"} {
		status, _ := l.get(t, stranger, path)
		require.Equal(t, http.StatusForbidden, status, path)
	}
	w := l.post(t, stranger, "/dead-letters/redeliver", map[string][]string{"all": {"yes"}})
	require.Equal(t, http.StatusSeeOther, w.Code)
	w = l.post(t, stranger, "/dead-letters/redeliver", map[string][]string{"id": {id.String()}})
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, 1, l.count(t, "SELECT count(*) FROM outbox.dead_letters"))

	own := l.token(t, ptr("a"), admin.ScopeRead)
	status, body := l.get(t, own, "/deliveries/"+id.String())
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "canary error")
}

func TestNothingForeignBecomesMarkup(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	text, err := json.Marshal(corpus)
	require.NoError(t, err)
	object := `{"a": ` + string(text) + `, ` + string(text) + `: 1}`
	hook := l.webhook(t, "<xss>", corpus)
	for _, h := range []string{corpus, object} { // a response that is JSON, and one that is not
		event := l.event(t, published{Type: `a"><xss>`, Payload: object, Key: corpus, Tenant: "<xss>", Source: corpus, Correlation: corpus, Headers: object})
		id := l.attempted(t, event, hook, 1, 500, corpus, h)
		harmless(t, l.page(t, "/deliveries/"+id.String()))
		harmless(t, l.page(t, "/events/"+event.String()))
		l.died(t, event, hook, corpus)
	}
	harmless(t, l.page(t, "/dead-letters"))
	harmless(t, l.page(t, "/events"))
	query := "?webhook=&type=" + strings.ReplaceAll("a.<xss>\"><xss>", `"`, "%22") + "&key=%22><xss>&correlation=%22><xss>"
	harmless(t, l.page(t, "/dead-letters"+query))
	harmless(t, l.page(t, "/events"+query))
}

func TestManyAndLargeAttemptsMakeAPageOfBoundedSize(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	hook := l.webhook(t, "", "hook")
	event := l.event(t, published{Type: "a", Payload: `"` + strings.Repeat("x", 3<<20) + `"`})
	var id uuid.UUID
	for n := range 20 {
		id = l.attempted(t, event, hook, n+1, 500, "status 500", "")
	}
	body := l.page(t, "/deliveries/"+id.String())
	require.Contains(t, body, "Cut here.")
	require.Less(t, len(body), 1<<20)
	body = l.page(t, "/events/"+event.String())
	require.Contains(t, body, "Cut here.")
	require.Less(t, len(body), 2<<20)
}

func TestAnAttemptArrivesOnAPageThatIsOpen(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	hook := l.webhook(t, "", "hook")
	event := l.event(t, published{Type: "a"})
	l.exec(t, `INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index,
		next_attempt_at) VALUES (outbox.delivery_id($2, $1), $1, $2, 'a', '{}', '', false, now(), now(), '0/1', 0, now() + interval '1 hour')`, hook, event)
	id := l.attempted(t, event, hook, 1, 500, "first error", "")
	stream := l.stream(t, "/deliveries/"+id.String()+"/live")
	stream.until("first error")
	l.attempted(t, event, hook, 2, 500, "second error <xss>", "")
	stream.until("second error &lt;xss&gt;")
}

// liveLines are those of a stream of events.
type liveLines struct {
	t     *testing.T
	lines *bufio.Scanner
}

func (l *lab) stream(t *testing.T, path string) liveLines {
	t.Helper()
	server := httptest.NewServer(l.handler)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
	require.NoError(t, err)
	r.AddCookie(&http.Cookie{Name: "walhook_session", Value: l.all})
	response, err := server.Client().Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	return liveLines{t, bufio.NewScanner(response.Body)}
}

// until reads up to a line with that text.
func (s liveLines) until(want string) {
	s.t.Helper()
	for s.lines.Scan() {
		if strings.Contains(s.lines.Text(), want) {
			return
		}
		require.NotContains(s.t, s.lines.Text(), "<xss")
	}
	require.Fail(s.t, "the stream ended", "%q was expected: %v", want, s.lines.Err())
}
