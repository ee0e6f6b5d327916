package ui

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// slot makes a slot's checkpoint, so that the views have a row, and returns its name.
func (s *site) slot() string {
	s.t.Helper()
	name := "ui_" + uuid.NewString()[:8]
	s.exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", name)
	ctx := context.WithoutCancel(s.t.Context()) // a slot outlives its database's tests otherwise
	s.t.Cleanup(func() { _, _ = s.db.Exec(ctx, "SELECT pg_drop_replication_slot($1)", name) })
	s.exec(`INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline)
		SELECT slot_name, confirmed_flush_lsn, confirmed_flush_lsn, now(), 'x', 1 FROM pg_replication_slots WHERE slot_name = $1`, name)
	return name
}

func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.db.Exec(s.t.Context(), sql, args...)
	require.NoError(s.t, err)
}

const evil = `<img src=x onerror=alert(1)>"'`

func TestOverview(t *testing.T) {
	t.Parallel()
	state := State{Name: "halted", Code: "slot_lost", What: "The slot is lost " + evil, Remedy: "walhook recover"}
	s := newSite(t, func(o *Options) { o.State = func() State { return state } })
	s.store.Slot = s.slot()
	s.exec(`INSERT INTO outbox.subscriptions (name, url, is_active) VALUES ('on', 'http://localhost/', true), ('off', 'http://localhost/', false), ('off too', 'http://localhost/', false)`)
	w := s.ask(s.token(nil, admin.ScopeRead), "GET", "/", nil)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	body := w.Body.String()
	for _, part := range []string{
		"slot_lost", "walhook recover", s.store.Slot, text("overview.lag"), text("overview.dead.none"), text("overview.alerts.none"), "2 inactive",
		`data-unit="bytes"`, `data-series="events:one:rate succeeded:two:rate"`, `aria-label="` + text("chart.throughput.label"), `aria-current="page"`, `href="#content"`, "v0.0.0-test",
		`hx-sse:connect="/overview/live"`,
	} {
		require.Contains(t, body, part)
	}
	require.NotContains(t, body, "<img src=x", "everything is escaped")

	tenant := "acme"
	body = s.ask(s.token(&tenant, admin.ScopeRead), "GET", "/", nil).Body.String()
	for _, part := range []string{text("overview.lag"), "slot_lost", "walhook recover", s.store.Slot, `data-unit="bytes"`, "events:one"} {
		require.NotContains(t, body, part, "what concerns the whole system is not for one tenant")
	}
	require.Contains(t, body, text("overview.queue"))
	require.Contains(t, body, "0 inactive")
}

// In a bad hour every webhook has an alert: the page, which is sent again and again, stays small and says so.
func TestOverviewOfManyAlerts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(`INSERT INTO outbox.subscriptions (name, url, is_active) SELECT 'hook-' || n, 'http://localhost/', n > 2 FROM generate_series(1, 120) AS n`)
	s.exec(`UPDATE outbox.subscriptions SET status = 'invalid' WHERE name IN ('hook-1', 'hook-7')`)
	overview := func() string { return s.ask(s.token(nil, admin.ScopeRead), "GET", "/", nil).Body.String() }
	more := text("overview.alerts.more", admin.MaxAlerts)
	require.NotContains(t, overview(), more)
	s.exec("INSERT INTO outbox.alerts (alert, subscription_id, message) SELECT 'timeouts', id, 'late' FROM outbox.subscriptions")
	body := overview()
	require.Contains(t, body, more)
	require.Equal(t, admin.MaxAlerts, strings.Count(body, "</a>: late"))
	for _, part := range []string{`<p class="big">118</p>`, "2 inactive", "2 invalid"} {
		require.Contains(t, body, part)
	}
}

func TestPrefixIsOnEveryPath(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(o *Options) { o.Prefix = "/relay" })
	body := s.ask(s.token(nil, admin.Scopes...), "GET", "/", nil).Body.String()
	for _, attribute := range []string{` href="/`, ` src="/`, ` action="/`, `connect="/`, `data-history="/`} {
		require.Contains(t, body, attribute)
		for _, rest := range strings.Split(body, attribute)[1:] {
			require.True(t, strings.HasPrefix(rest, "relay/"), "%s%.30s", attribute, rest)
		}
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := s.ask(s.token(nil, admin.ScopeRead), "GET", "/overview/history", nil)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var points []admin.Pulse
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &points))
	require.NotNil(t, points)
}

// TestOverviewIsLive goes over a real connection: what is buffered on the way is not live.
func TestOverviewIsLive(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.store.Slot = s.slot()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/overview/live", nil)
	require.NoError(t, err)
	token := s.token(nil, admin.ScopeRead)
	r.AddCookie(&http.Cookie{Name: sessionCookie, Value: token})
	answer, err := server.Client().Do(r)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	require.Equal(t, http.StatusOK, answer.StatusCode)
	require.Equal(t, "text/event-stream", answer.Header.Get("Content-Type"))
	require.Equal(t, policy, answer.Header.Get("Content-Security-Policy"))
	require.Equal(t, "no-store", answer.Header.Get("Cache-Control"))

	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	find := func(prefix string) string {
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), prefix) {
				return lines.Text()
			}
		}
		t.Fatalf("the stream ended before %q: %v", prefix, lines.Err())
		return ""
	}
	find(`data: <div class="grid">`)
	find("event: pulse")
	var pulse admin.Pulse
	require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(find("data: "), "data: ")), &pulse))
	require.False(t, pulse.At.IsZero())

	s.exec(`INSERT INTO outbox.subscriptions (id, name, url) VALUES ('0190a1b2-0000-7000-8000-000000000001', 'x', 'http://localhost/')`)
	s.exec(`INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index, next_attempt_at)
		SELECT gen_random_uuid(), '0190a1b2-0000-7000-8000-000000000001', gen_random_uuid(), 'x', '{}', '', false, now(), now(), '0/1', g, now() FROM generate_series(1, 7) AS g`)
	for pulse.QueueDepth != 7 { // the test's deadline ends what never comes
		find("event: pulse")
		require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(find("data: "), "data: ")), &pulse))
	}
}

// TestOverviewAsksLittle counts what an open page costs.
func TestOverviewAsksLittle(t *testing.T) {
	t.Parallel()
	o := &overview{}
	turns := map[string]int{}
	for range 300 {
		turns[o.turn(true)]++
	}
	require.Equal(t, map[string]int{"webhooks": 10, "slots": 40, "alerts": 40, "pulse": 210}, turns)
}

func TestAPageThatIsGoneIsNoError(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/overview/live", nil)
	require.NoError(t, err)
	r.AddCookie(&http.Cookie{Name: sessionCookie, Value: s.token(nil, admin.ScopeRead)})
	answer, err := server.Client().Do(r)
	require.NoError(t, err)
	_, err = io.ReadFull(answer.Body, make([]byte, 3))
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	server.CloseClientConnections()
	server.Close() // waits for the handler
	require.Empty(t, s.log.String())
}
