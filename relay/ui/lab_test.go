package ui_test

import (
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

// lab is a dashboard on a database of its own, with somebody for whom all is allowed.
type lab struct {
	*pgxpool.Pool
	store   *admin.Store
	handler http.Handler
	options ui.Options
	slot    string
	all     string // a token
}

func newLab(t *testing.T, change ...func(*ui.Options)) *lab {
	t.Helper()
	l := &lab{Pool: harness.Connect(t, harness.Database(t)), slot: "ui_" + uuid.NewString()[:8]}
	l.store = admin.New(l.Pool, admin.Options{Slot: l.slot})
	l.options = ui.Options{
		Store: l.store, Gate: admin.NewGate(l.store), Version: "1.2.3", Log: zerolog.Nop(),
		State:    func() ui.State { return ui.State{Ready: true, Name: "running"} },
		Forecast: func(context.Context) (ui.Forecast, error) { return ui.Forecast{}, nil },
		Doctor:   func(context.Context) []ui.Finding { return nil },
	}
	for _, c := range change {
		c(&l.options)
	}
	l.handler = ui.New(l.options)
	l.all = l.token(t, nil, admin.ScopeRead, admin.ScopeManage, admin.ScopePublish)
	return l
}

// token makes one; tenant nil: for all.
func (l *lab) token(t *testing.T, tenant *string, scopes ...admin.Scope) string {
	t.Helper()
	_, token, err := l.store.CreateToken(t.Context(), admin.NewToken{Name: uuid.NewString(), Scopes: scopes, Tenant: tenant})
	require.NoError(t, err)
	return token
}

func (l *lab) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := l.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func (l *lab) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, l.QueryRow(t.Context(), query, args...).Scan(&n))
	return n
}

// webhook makes a subscription that wants everything.
func (l *lab) webhook(t *testing.T, tenant, name string) (id uuid.UUID) {
	t.Helper()
	require.NoError(t, l.QueryRow(t.Context(), `INSERT INTO outbox.subscriptions (tenant, name, url, headers)
		VALUES ($1, $2, 'http://localhost/hook', '{"X-Shown": "shown", "Authorization": "canary"}') RETURNING id`, tenant, name).Scan(&id))
	return id
}

// published is an event to be.
type published struct{ Type, Payload, Key, Tenant, Source, Correlation, Headers string }

func (l *lab) event(t *testing.T, e published) (id uuid.UUID) {
	t.Helper()
	require.NoError(t, l.QueryRow(t.Context(), `SELECT outbox.publish($1, coalesce(nullif($2, ''), '{}')::jsonb, nullif($3, ''), $4, nullif($5, ''), nullif($6, ''),
		coalesce(nullif($7, ''), '{}')::jsonb)`, e.Type, e.Payload, e.Key, e.Tenant, e.Source, e.Correlation, e.Headers).Scan(&id))
	return id
}

// attempted notes an attempt, and returns the delivery's id. wrong empty: it succeeded.
func (l *lab) attempted(t *testing.T, event, webhook uuid.UUID, attempt, status int, wrong, response string) (id uuid.UUID) {
	t.Helper()
	require.NoError(t, l.QueryRow(t.Context(), `INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id,
			revision, epoch, duration_us, attempt, status, error, response_body)
		SELECT now(), now(), outbox.delivery_id($1, s.id), $1, s.id, s.revision, 1, 12345, $3::int, nullif($4::int, 0), nullif($5::text, ''), $6::text
		FROM outbox.subscriptions s WHERE s.id = $2 RETURNING delivery_id`, event, webhook, attempt, status, wrong, response).Scan(&id))
	return id
}

// died makes a dead letter of an event for a webhook, which may be deleted.
func (l *lab) died(t *testing.T, event, webhook uuid.UUID, wrong string) (id uuid.UUID) {
	t.Helper()
	require.NoError(t, l.QueryRow(t.Context(), `INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, key, tenant, emitted,
			created_at, committed_at, commit_lsn, commit_index, attempts, last_attempt_at, last_status, last_error)
		SELECT outbox.delivery_id(e.id, $2), $2, e.id, e.type, e.payload::text, e.key, e.tenant, false, now(), now(), '0/1', 0, 4, now(), 500, $3
		FROM outbox.events e WHERE e.id = $1 RETURNING id`, event, webhook, wrong).Scan(&id))
	return id
}

// get returns a page of somebody's.
func (l *lab) get(t *testing.T, token, path string) (int, string) {
	t.Helper()
	w := l.do(t, httptest.NewRequest(http.MethodGet, path, nil), token)
	return w.Code, w.Body.String()
}

// page is one that must be there, for who may do everything.
func (l *lab) page(t *testing.T, path string) string {
	t.Helper()
	status, body := l.get(t, l.all, path)
	require.Equal(t, http.StatusOK, status, "%s: %s", path, body)
	return body
}

// part is what a script gets.
func (l *lab) part(t *testing.T, path string) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("HX-Request", "true")
	w := l.do(t, r, l.all)
	require.Equal(t, http.StatusOK, w.Code, "%s: %s", path, w.Body)
	require.NotContains(t, w.Body.String(), "<html")
	return w.Body.String()
}

// post sends a form.
func (l *lab) post(t *testing.T, token, path string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	return l.send(t, token, path, form.Encode())
}

func (l *lab) send(t *testing.T, token, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return l.do(t, r, token)
}

func (l *lab) do(t *testing.T, r *http.Request, token string) *httptest.ResponseRecorder {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r.AddCookie(&http.Cookie{Name: "walhook_session", Value: token})
	w := httptest.NewRecorder()
	l.handler.ServeHTTP(w, r.WithContext(ctx))
	return w
}

// follow returns the page that a form led to, with its notice.
func (l *lab) follow(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	require.Equal(t, http.StatusSeeOther, w.Code, w.Body)
	r := httptest.NewRequest(http.MethodGet, w.Header().Get("Location"), nil)
	for _, c := range w.Result().Cookies() {
		r.AddCookie(c)
	}
	to := l.do(t, r, l.all)
	require.Equal(t, http.StatusOK, to.Code, to.Body)
	return to.Body.String()
}

// hostile are texts that would be markup, or leave an attribute, if they were not escaped.
var hostile = []string{
	`<xss>`, `"><xss a=b>`, `'><xss a=b>`, `</pre><xss>`, `</code></td><xss>`, `</textarea><xss>`, `</title><xss>`, `<!--<xss>`,
	`" onfocus="xss()" x="`, `' onfocus='xss()' x='`, `{{template "content"}}<xss>`, `&lt;xss&gt;<xss>`,
}

// all in one.
var corpus = strings.Join(hostile, " ")

// harmless checks that nothing of the corpus is markup, and that it is there.
func harmless(t *testing.T, body string) {
	t.Helper()
	require.NotContains(t, body, "<xss")
	require.NotContains(t, body, `" onfocus="`)
	require.NotContains(t, body, `' onfocus='`)
	require.Contains(t, body, "&lt;xss")
}

func ptr[T any](v T) *T { return &v }
