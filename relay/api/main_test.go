package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/relay/api"
	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// root is the token of the configuration: every scope, all tenants.
const root = "whk_configured-for-tests-0123456789abcdef"

// log keeps what is logged.
type log struct {
	sync.Mutex
	bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Buffer.Write(p)
}

func (l *log) text() string {
	l.Lock()
	defer l.Unlock()
	return l.String()
}

// service is the API over a database of its own.
type service struct {
	*testing.T
	db      *pgxpool.Pool
	store   *admin.Store
	handler http.Handler
	server  *httptest.Server
	log     *log
}

func newService(t *testing.T) *service {
	t.Helper()
	db := harness.Connect(t, harness.Database(t))
	return serve(t, db)
}

func serve(t *testing.T, db *pgxpool.Pool) *service {
	t.Helper()
	s := &service{T: t, db: db, log: &log{}}
	s.store = admin.New(db, admin.Options{Slot: "walhook", Token: root})
	s.handler = api.New(api.Options{Store: s.store, Gate: admin.NewGate(s.store), Version: "1.2.3", Log: zerolog.New(s.log)})
	s.server = httptest.NewServer(s.handler)
	t.Cleanup(s.server.Close)
	return s
}

// token makes one with scopes, of a tenant unless that is nil.
func (s *service) token(tenant *string, scopes ...admin.Scope) string {
	s.Helper()
	_, secret, err := s.store.CreateToken(s.Context(), admin.NewToken{Name: uuid.NewString(), Scopes: scopes, Tenant: tenant})
	require.NoError(s, err)
	return secret
}

// answer is a response that was read.
type answer struct {
	*http.Response
	text []byte
}

// do sends a request. headers are name and value in turn.
func (s *service) do(token, method, path, body string, headers ...string) answer {
	s.Helper()
	return s.send(s.request(token, method, path, strings.NewReader(body), headers...))
}

func (s *service) request(token, method, path string, body io.Reader, headers ...string) *http.Request {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), method, s.server.URL+"/api/v1"+path, body)
	require.NoError(s, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func (s *service) send(r *http.Request) answer {
	s.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	require.NoError(s, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(s, err)
	return answer{response, text}
}

// wants checks the status and returns the answer.
func (a answer) wants(t testing.TB, status int) answer {
	t.Helper()
	require.Equal(t, status, a.StatusCode, "%s %s: %s", a.Request.Method, a.Request.URL, a.text)
	require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	require.Equal(t, "nosniff", a.Header.Get("X-Content-Type-Options"))
	return a
}

// object is the answer's JSON.
func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal(a.text, &v), "%s", a.text)
	return v
}

// refused checks that the answer is a problem which names a place, and returns it.
func (a answer) refused(t testing.TB, status int, location string) map[string]any {
	t.Helper()
	a.wants(t, status)
	require.Equal(t, "application/problem+json", a.Header.Get("Content-Type"))
	p := a.object(t)
	require.Equal(t, "about:blank", p["type"])
	require.EqualValues(t, status, p["status"])
	require.Equal(t, http.StatusText(status), p["title"])
	require.NotEmpty(t, p["detail"])
	if location != "" {
		require.NotEmpty(t, p["errors"], "%s", a.text)
		first := p["errors"].([]any)[0].(map[string]any)
		require.Equal(t, location, first["location"], "%s", a.text)
		require.NotEmpty(t, first["message"])
	}
	return p
}

// create makes a webhook and returns it.
func (s *service) create(token, body string) map[string]any {
	s.Helper()
	return s.do(token, "POST", "/webhooks/", body).wants(s, 201).object(s)
}

const minimal = `{"name": "a", "url": "https://example.com/a"}`

func (s *service) count(ctx context.Context, sql string, args ...any) (n int) {
	s.Helper()
	require.NoError(s, s.db.QueryRow(ctx, sql, args...).Scan(&n))
	return n
}
