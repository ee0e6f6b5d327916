package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/relay/secret"
	"github.com/walhook/walhook/test/harness"
)

// hanging answers when its context ends.
func hanging(began chan<- *http.Request) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- r
		<-r.Context().Done()
	})
}

// ask sends a request to a handler and returns the answer once there is one.
func ask(t *testing.T, h http.Handler, path string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	if header != nil {
		r.Header = header
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// answers is a service with that face.
func answers(f *face) http.Handler {
	s := &service{log: zerolog.Nop()}
	e := &engine{service: s, face: f}
	e.cfg.Store(&config.Config{})
	s.engine.Store(e)
	s.metrics = ops.NewMetrics(s.lanes, s.lag)
	return s.pages()
}

// Pages that listen end with the engine, and other requests a moment later; then nobody gets in.
func TestAFaceClosesInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := make(chan *http.Request)
		f := answering(hanging(began))
		f.open.Store(true)
		begin := time.Now()
		var page, request time.Duration
		go func() {
			ask(t, answers(f), "/live", http.Header{"Accept": {"text/event-stream"}})
			page = time.Since(begin)
		}()
		<-began
		go func() { ask(t, answers(f), "/api/v1/webhooks/", nil); request = time.Since(begin) }()
		<-began
		f.close()
		synctest.Wait()
		require.Zero(t, page)
		require.Equal(t, faceGrace, request)
		require.Equal(t, http.StatusServiceUnavailable, ask(t, answers(f), "/", nil).Code)
	})
}

// A client that goes away ends its request as before.
func TestAFacePassesOnThatTheClientIsGone(t *testing.T) {
	t.Parallel()
	began := make(chan *http.Request, 1)
	f := answering(hanging(began))
	f.open.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.True(t, f.answer(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)))
	f.close()
}

func TestAFaceThatIsNotOpenYet(t *testing.T) {
	t.Parallel()
	f := answering(http.NotFoundHandler())
	for path, kind := range map[string]string{"/walhook/api/v1/webhooks/": "application/problem+json", "/walhook/": "text/plain; charset=utf-8"} {
		w := ask(t, answers(f), path, nil)
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Equal(t, kind, w.Header().Get("Content-Type"))
		require.NotEmpty(t, w.Header().Get("Retry-After"))
		require.Contains(t, w.Body.String(), "/readyz")
	}
	f.close()
}

// Who was on the way to an engine that has just ended is answered by the next one.
func TestARequestBetweenTwoEngines(t *testing.T) {
	t.Parallel()
	old, next := answering(http.NotFoundHandler()), answering(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	old.open.Store(true)
	next.open.Store(true)
	old.close()
	s := &service{}
	s.engine.Store(&engine{face: next})
	w := httptest.NewRecorder()
	s.answer(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), &engine{face: old})
	require.Equal(t, http.StatusTeapot, w.Code)
	next.close()
}

// API and dashboard have few connections, and no statement of theirs takes for ever, whatever the role's settings are.
func TestAFaceIsBounded(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	s := away(t, func(c *config.Config) { c.DatabaseURL = config.Secret(url) })
	pool := s.engine.Load().face.pool
	require.EqualValues(t, faceConnections, pool.Config().MaxConns)
	var name, statement, idle string
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT current_setting('application_name'), current_setting('statement_timeout'),
		current_setting('idle_in_transaction_session_timeout')`).Scan(&name, &statement, &idle))
	require.Equal(t, []string{"walhook-api", "30s", "30s"}, []string{name, statement, idle})
}

// Secrets that come over API and dashboard are stored as those of the command line are.
func TestSeal(t *testing.T) {
	t.Parallel()
	keyset, err := secret.NewKeyset()
	require.NoError(t, err)
	with, without := secret.NewResolver(secret.Options{Keyset: keyset}), secret.NewResolver(secret.Options{})
	id := uuid.New()
	stored, err := seal(with)("hush", id)
	require.NoError(t, err)
	require.True(t, secret.IsEncrypted(stored))
	again, err := seal(with)(stored, id)
	require.NoError(t, err)
	require.Equal(t, stored, again)
	_, err = seal(with)(stored, uuid.New())
	require.Error(t, err, "a ciphertext of another subscription")
	for _, as := range []string{"env:HUSH", "file:/run/secrets/hush"} {
		stored, err = seal(with)(as, id)
		require.NoError(t, err)
		require.Equal(t, as, stored)
	}
	_, err = seal(with)("file:relative", id)
	require.Error(t, err)
	stored, err = seal(without)("hush", id)
	require.NoError(t, err)
	require.Equal(t, "hush", stored)
}

// away is a service whose database does not answer.
func away(t *testing.T, change func(*config.Config)) *service {
	t.Helper()
	cfg := config.Default()
	cfg.DatabaseURL, cfg.Listen = "postgres://postgres@127.0.0.1:1/none", "127.0.0.1:0"
	change(&cfg)
	require.NoError(t, cfg.Validate())
	s, err := newService(t.Context(), cfg, zerolog.Nop())
	require.NoError(t, err)
	t.Cleanup(func() {
		s.engine.Load().close()
		s.front.discard()
		s.metricsFront.discard()
	})
	return s
}

// What is found at which path.
func TestPaths(t *testing.T) {
	t.Parallel()
	const none, denied, login = http.StatusNotFound, http.StatusUnauthorized, http.StatusSeeOther
	plain := func(*config.Config) {}
	prefixed := func(c *config.Config) { c.PathPrefix = "/hooks/walhook" }
	for name, c := range map[string]struct {
		change func(*config.Config)
		status map[string]int
	}{
		"plain":    {plain, map[string]int{"/healthz": 200, "/readyz": 503, "/metrics": 200, "/api/v1/webhooks/": denied, "/api/v1/openapi.json": 200, "/api/v2/": login, "/api/v1": denied, "/api/v1/../../healthz": denied, "//healthz": login}},
		"prefixed": {prefixed, map[string]int{"/healthz": 200, "/readyz": 503, "/metrics": 200, "/": none, "/api/v1/webhooks/": none, "/hooks/": none, "/hooks/walhook": 308, "/hooks/walhook/api/v1/webhooks/": denied, "/hooks/walhook/healthz": login, "/hooks/walhook/../api/v1/": login, "/hooks/walhook/api/v1": denied, "/hooks/walhooks": none}},
		"no API":   {func(c *config.Config) { c.API.Enabled = false }, map[string]int{"/healthz": 200, "/metrics": 200, "/": none, "/api/v1/webhooks/": none}},
		"metrics":  {func(c *config.Config) { c.MetricsListen = "127.0.0.1:0" }, map[string]int{"/healthz": 200, "/readyz": 503, "/metrics": none, "/api/v1/webhooks/": denied}},
		"public, and the database cannot be asked for tokens": {func(c *config.Config) { c.Listen = "0.0.0.0:0" },
			map[string]int{"/healthz": 200, "/metrics": 200, "/": 503, "/api/v1/webhooks/": 503}},
		"public, with a token": {func(c *config.Config) { c.Listen, c.API.Token = "0.0.0.0:0", "a-token-of-twenty-characters" },
			map[string]int{"/healthz": 200, "/api/v1/webhooks/": denied}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := away(t, c.change)
			for path, status := range c.status {
				require.Equal(t, status, ask(t, s.pages(), path, nil).Code, path)
			}
		})
	}
}

// The dashboard is where the prefix is, and leads to nowhere else.
func TestTheDashboardKeepsItsPrefix(t *testing.T) {
	t.Parallel()
	s := away(t, func(c *config.Config) { c.PathPrefix = "/walhook" })
	require.Equal(t, "/walhook/", ask(t, s.pages(), "/walhook", nil).Header().Get("Location"))
	w := ask(t, s.pages(), "/walhook/", nil)
	require.Contains(t, []int{http.StatusOK, http.StatusFound, http.StatusSeeOther, http.StatusUnauthorized}, w.Code, "a login")
	if to := w.Header().Get("Location"); to != "" {
		require.Regexp(t, "^/walhook/", to)
	}
}
