package ui_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/relay/ui"
	"github.com/walhook/walhook/test/harness"
)

// secretCanary is in everything that no page may show.
const secretCanary = "c4n4ry"

// board is a dashboard on a database, as one principal uses it.
type board struct {
	*pgxpool.Pool
	store   *admin.Store
	handler http.Handler
	token   string
}

// newBoard is used by somebody who may everything.
func newBoard(t *testing.T) board {
	t.Helper()
	pool := harness.Connect(t, harness.Database(t))
	store := admin.New(pool, admin.Options{Token: "the-first-token"})
	handler := ui.New(ui.Options{
		Store: store, Gate: admin.NewGate(store), Version: "1.2.3", Log: zerolog.New(zerolog.NewTestWriter(t)),
		State: func() ui.State { return ui.State{Ready: true, Name: "running"} },
	})
	return board{Pool: pool, store: store, handler: handler, token: "the-first-token"}
}

// as is the same dashboard for somebody with other scopes, of one tenant where one is given.
func (b board) as(t *testing.T, scopes []admin.Scope, tenant ...string) board {
	t.Helper()
	n := admin.NewToken{Name: uuid.NewString(), Scopes: scopes}
	if len(tenant) > 0 {
		n.Tenant = &tenant[0]
	}
	var err error
	_, b.token, err = b.store.CreateToken(t.Context(), n)
	require.NoError(t, err)
	return b
}

// page is what came back.
type page struct {
	status   int
	body     string
	location string
	header   http.Header
}

func (b board) do(t *testing.T, r *http.Request) page {
	t.Helper()
	r.AddCookie(&http.Cookie{Name: "walhook_session", Value: b.token})
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return page{w.Code, w.Body.String(), w.Header().Get("Location"), w.Header()}
}

func (b board) get(t *testing.T, path string) page {
	t.Helper()
	return b.do(t, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
}

// post sends a form of names and values.
func (b board) post(t *testing.T, path string, pairs ...string) page {
	t.Helper()
	return b.do(t, formRequest(t, path, pairs...))
}

func formRequest(t *testing.T, path string, pairs ...string) *http.Request {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// webhookForm is the form with everything that a browser sends, and what is given instead.
func webhookForm(pairs ...string) []string {
	return append([]string{
		"name", "orders", "url", "http://localhost/orders", "is_active", "yes", "signature", "sha256", "payload_format", "envelope",
		"payload_version", "1", "verification", "none", "max_retries", "3", "retry_delay", "60", "timeout", "30", "ordering", "none",
		"max_in_flight", "16", "rate_limit", "", "batch_size", "1", "batch_wait", "0",
	}, pairs...)
}

// desk is the store as everybody's.
func (b board) desk() *admin.Desk {
	return b.store.For(&admin.Principal{Name: "test", Scopes: admin.Scopes})
}

// webhook makes one behind the dashboard's back.
func (b board) webhook(t *testing.T, name, tenant string) admin.Webhook {
	t.Helper()
	w, err := b.desk().CreateWebhook(t.Context(), admin.Change{
		Name: &name, Tenant: &tenant, URL: ptr("http://localhost/" + url.PathEscape(name)), Secret: ptr(secretCanary),
		Headers: &map[string]string{"Authorization": "Bearer " + secretCanary, "X-Team": "billing"},
	})
	require.NoError(t, err)
	return w
}

// attempt records an attempt of a webhook as a relay does, and returns its delivery.
func (b board) attempt(t *testing.T, webhook uuid.UUID, succeeded bool, said string) uuid.UUID {
	t.Helper()
	delivery := uuid.Must(uuid.NewV7())
	b.record(t.Context(), t, delivery, webhook, succeeded, said)
	return delivery
}

func (b board) record(ctx context.Context, t *testing.T, delivery, webhook uuid.UUID, succeeded bool, said string) {
	t.Helper()
	_, err := b.Exec(ctx, `
WITH removed AS (DELETE FROM outbox.deliveries WHERE id = $1),
totals AS (
  INSERT INTO outbox.subscription_totals AS t (subscription_id, attempts, succeeded, failed, delivered, total_us, latency, consecutive_failures, last_attempt_at)
  VALUES ($2, 1, $3::boolean::int, 1 - $3::boolean::int, $3::boolean::int, 3000, array_fill(0::bigint, '{2}') || 1::bigint || array_fill(0::bigint, '{17}'), 1 - $3::boolean::int, clock_timestamp())
  ON CONFLICT (subscription_id) DO UPDATE SET attempts = t.attempts + 1, succeeded = t.succeeded + excluded.succeeded, failed = t.failed + excluded.failed,
    total_us = t.total_us + 3000, latency = outbox.add_counts(t.latency, excluded.latency), last_attempt_at = excluded.last_attempt_at,
    consecutive_failures = CASE WHEN $3 THEN 0 ELSE t.consecutive_failures + 1 END)
INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status, error, response_body)
SELECT clock_timestamp(), now(), $1, $1, id, revision, 1, 3000, 1, CASE WHEN $3 THEN 200 ELSE 500 END, CASE WHEN $3 THEN NULL ELSE $4 END, $4
FROM outbox.subscriptions WHERE id = $2`, delivery, webhook, succeeded, said)
	require.NoError(t, err)
}

// stream reads a stream of server-sent events.
type stream struct {
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// follow opens a stream over a real connection.
func (b board) follow(t *testing.T, path string) *stream {
	t.Helper()
	server := httptest.NewServer(b.handler)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
	require.NoError(t, err)
	r.Header.Set("Accept", "text/event-stream")
	r.AddCookie(&http.Cookie{Name: "walhook_session", Value: b.token})
	response, err := server.Client().Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Contains(t, response.Header.Get("Content-Type"), "text/event-stream")
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 4<<20)
	return &stream{lines, cancel}
}

// until reads messages until one has all that is wanted, and returns it.
func (s *stream) until(t *testing.T, wanted ...string) string {
	t.Helper()
	var data strings.Builder
	for s.lines.Scan() {
		line := s.lines.Text()
		if line != "" {
			if part, found := strings.CutPrefix(line, "data:"); found {
				data.WriteString(strings.TrimPrefix(part, " ") + "\n")
			}
			continue
		}
		message := data.String()
		data.Reset()
		if containsAll(message, wanted) {
			return message
		}
	}
	require.Fail(t, "the stream ended", "without %q: %v", wanted, s.lines.Err())
	return ""
}

func containsAll(s string, all []string) bool {
	for _, part := range all {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}
