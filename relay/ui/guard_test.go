package ui

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// concrete makes a request's method and path of a route's pattern.
func concrete(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	path = strings.ReplaceAll(path, "{$}", "")
	path = strings.ReplaceAll(path, "{id}", "0190a1b2-0000-7000-8000-000000000000")
	return method, path
}

func TestStrangersGetNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	paths := map[string]string{"GET /no/such/page": "", "GET /webhooks/": "", "GET /../etc/passwd": "", "POST /nothing": "", "DELETE /": ""}
	for _, r := range s.ui.routes() {
		paths[r.pattern] = ""
	}
	for pattern := range paths {
		method, path := concrete(pattern)
		for _, token := range []string{"", "wrong"} {
			s.ui.Gate = admin.NewGate(s.store) // this is not about guessing too often
			w := s.ask(token, method, path, nil)
			require.Empty(t, w.Body.String(), pattern)
			requireHeaders(t, w, pattern)
			if method == http.MethodGet {
				require.Equal(t, http.StatusSeeOther, w.Code, pattern)
				require.True(t, strings.HasPrefix(w.Header().Get("Location"), "/login"), pattern)
			} else {
				require.Equal(t, http.StatusUnauthorized, w.Code, pattern)
			}
			w = s.ask(token, method, path, nil, "HX-Request", "true")
			require.Equal(t, http.StatusUnauthorized, w.Code, pattern)
			require.Empty(t, w.Body.String(), pattern)
			w = s.ask(token, method, path, nil, "Accept", "text/event-stream")
			require.Equal(t, http.StatusUnauthorized, w.Code, pattern)
		}
	}
}

func requireHeaders(t *testing.T, w *httptest.ResponseRecorder, what string) {
	t.Helper()
	require.Equal(t, policy, w.Header().Get("Content-Security-Policy"), what)
	require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"), what)
	require.Equal(t, "no-referrer", w.Header().Get("Referrer-Policy"), what)
	require.NotEmpty(t, w.Header().Get("Cache-Control"), what)
}

func TestEveryRouteTakesItsScope(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	tokens := map[admin.Scope]string{}
	for _, scope := range admin.Scopes {
		tokens[scope] = s.token(nil, scope)
	}
	for _, r := range s.ui.routes() {
		require.Contains(t, admin.Scopes, r.scope, r.pattern)
		method, path := concrete(r.pattern)
		if method == http.MethodPost {
			require.NotEqual(t, admin.ScopeRead, r.scope, "%s changes something", r.pattern)
		}
		for scope, token := range tokens {
			if (&admin.Principal{Scopes: []admin.Scope{scope}}).May(r.scope) {
				continue
			}
			w := s.ask(token, method, path, nil)
			require.Equal(t, http.StatusForbidden, w.Code, "%s with scope %s", r.pattern, scope)
			require.Contains(t, w.Body.String(), text("error.403.scope", string(r.scope)), r.pattern)
			requireHeaders(t, w, r.pattern)
		}
	}
}

func TestWhatConcernsTheWholeSystemIsNotForOneTenant(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	tenant := "acme"
	token := s.token(&tenant, admin.Scopes...)
	for _, r := range s.ui.routes() {
		if !r.everywhere {
			continue
		}
		method, path := concrete(r.pattern)
		w := s.ask(token, method, path, nil)
		require.Equal(t, http.StatusForbidden, w.Code, r.pattern)
	}
	w := s.ask(token, "GET", "/", nil)
	require.Equal(t, http.StatusOK, w.Code)
	require.NotContains(t, w.Body.String(), `href="/slot"`)
	require.Contains(t, s.ask(s.token(nil, admin.ScopeRead), "GET", "/", nil).Body.String(), `href="/slot"`)
}

func TestOtherSitesCannotSubmitForms(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := s.token(nil, admin.Scopes...)
	patterns := []string{"POST /login", "POST /logout"}
	for _, r := range s.ui.routes() {
		patterns = append(patterns, r.pattern)
	}
	for _, pattern := range patterns {
		method, path := concrete(pattern)
		if method == http.MethodGet {
			continue
		}
		for _, headers := range [][]string{
			{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
		} {
			w := s.ask(token, method, path, nil, headers...)
			require.Equal(t, http.StatusForbidden, w.Code, "%s with %s", pattern, headers)
			require.Empty(t, w.Header().Values("Set-Cookie"), pattern)
			requireHeaders(t, w, pattern)
		}
	}
	w := s.ask(token, "POST", "/logout", nil, "Sec-Fetch-Site", "same-origin", "Origin", "http://example.com")
	require.Equal(t, http.StatusSeeOther, w.Code)
}

func TestPathTricksFindNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := s.token(nil, admin.Scopes...)
	for _, path := range []string{
		"//evil.example/", "/webhooks/../slot", "/%2e%2e/%2e%2e/etc/passwd", "/static/x/app.css", "/static/" + staticHash + "/..%2fui.go",
		"/static/" + staticHash + "/", "/static/" + staticHash, "/static", "/login/", "/nothing", "/webhooks//", "/./", "/%00",
	} {
		w := s.ask(token, "GET", path, nil)
		require.Equal(t, http.StatusNotFound, w.Code, path)
		require.Empty(t, w.Header().Get("Location"), path)
		requireHeaders(t, w, path)
	}
}

func TestFormsAreBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := s.token(nil, admin.Scopes...)
	for _, path := range []string{"/login", "/webhooks"} {
		w := s.ask(token, "POST", path, url.Values{"name": {strings.Repeat("x", maxForm)}})
		require.Equal(t, http.StatusRequestEntityTooLarge, w.Code, path)
		w = s.ask(token, "POST", path, url.Values{"name": {"x"}}, "Content-Type", "application/json")
		require.Equal(t, http.StatusUnsupportedMediaType, w.Code, path)
		r := httptest.NewRequest("POST", path, strings.NewReader("a=%zz"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(&http.Cookie{Name: sessionCookie, Value: token})
		out := httptest.NewRecorder()
		s.ServeHTTP(out, r)
		require.Equal(t, http.StatusBadRequest, out.Code, path)
	}
}

func TestErrorsBecomePages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	who := &admin.Principal{Name: "me", Scopes: admin.Scopes}
	const secret = "s3cret<script>"
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{&admin.Error{Kind: admin.NotFound, Message: "there is no webhook <b>"}, 404, "there is no webhook &lt;b&gt;"},
		{&admin.Error{Kind: admin.Invalid, Field: "name", Message: "is empty"}, 422, "name:"},
		{&admin.Error{Kind: admin.Conflict, Message: "it is inactive"}, 409, "it is inactive"},
		{&admin.Error{Kind: admin.Stale, Message: "it has changed"}, 412, "it has changed"},
		{&admin.Error{Kind: admin.Forbidden, Message: "not yours"}, 403, "not yours"},
		{&admin.Error{Kind: admin.TooMany, Message: "slower", RetryAfter: 7}, 429, "slower"},
		{fmt.Errorf("ask: %s", secret), 500, text("error.500.text")},
		{&admin.Error{Kind: "new", Message: secret}, 500, text("error.500.text")},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		s.ui.fail(&response{ResponseWriter: w}, &visit{Request: r, who: who}, c.err)
		require.Equal(t, c.status, w.Code, "%v", c.err)
		require.Contains(t, w.Body.String(), c.says)
		require.NotContains(t, w.Body.String(), "s3cret")
		if c.status == 429 {
			require.Equal(t, "7", w.Header().Get("Retry-After"))
		}
	}
	require.Equal(t, 2, strings.Count(s.log.String(), "\n"), "each failure of ours is logged once, no other")
}

func TestPanicsBecomePages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := s.token(nil, admin.ScopeRead)
	next := s.ui.guard(route{scope: admin.ScopeRead, handle: func(http.ResponseWriter, *visit) error { panic("s3cret") }})
	s.Handler = s.ui.secured(next)
	w := s.ask(token, "GET", "/", nil)
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), text("error.500.text"))
	require.NotContains(t, w.Body.String()+s.log.String(), "s3cret")
	require.Contains(t, s.log.String(), "panicked")
	requireHeaders(t, w, "panic")
}

func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	nowhere, err := pgxpool.New(t.Context(), "postgres://walhook@127.0.0.1:1/walhook")
	require.NoError(t, err)
	t.Cleanup(nowhere.Close)
	store := admin.New(nowhere, admin.Options{})
	s := newSite(t, func(o *Options) { o.Store, o.Gate = store, admin.NewGate(store) })
	for _, method := range []string{"GET", "POST"} {
		w := s.ask("any", method, "/", nil)
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Equal(t, "5", w.Header().Get("Retry-After"))
		require.Contains(t, w.Body.String(), text("error.503"))
		require.Equal(t, method == "GET", strings.Contains(w.Body.String(), `http-equiv="refresh"`), "only what may be asked again is")
	}
	require.Equal(t, http.StatusOK, s.ask("", "GET", "/login", nil).Code)
	require.Equal(t, http.StatusServiceUnavailable, s.ask("", "POST", "/login", url.Values{"token": {"any"}}).Code)
}
