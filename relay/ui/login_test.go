package ui

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(o *Options) { o.Prefix = "/relay" })
	token := s.token(nil, admin.ScopeRead)

	w := s.ask("", "GET", "/events?type=a.b&key=1", nil)
	require.Equal(t, http.StatusSeeOther, w.Code)
	to, err := url.Parse(w.Header().Get("Location"))
	require.NoError(t, err)
	require.Equal(t, "/relay/login", to.Path)
	next := to.Query().Get("next")
	require.Equal(t, "/events?type=a.b&key=1", next)

	w = s.ask("", "GET", strings.TrimPrefix(to.String(), "/relay"), nil)
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `value="/events?type=a.b&amp;key=1"`)

	w = s.ask("", "POST", "/login", url.Values{"token": {" " + token + "\n"}, "next": {next}})
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, "/relay/events?type=a.b&key=1", w.Header().Get("Location"))
	require.Len(t, w.Result().Cookies(), 1)
	c := w.Result().Cookies()[0]
	require.Equal(t, "walhook_session", c.Name)
	require.Equal(t, token, c.Value)
	require.Equal(t, "/relay", c.Path)
	require.True(t, c.HttpOnly)
	require.Equal(t, http.SameSiteStrictMode, c.SameSite)
	require.False(t, c.Secure, "the cookie must come back over plain HTTP, where that is how it was set")
	require.Zero(t, c.MaxAge)
	require.True(t, c.Expires.IsZero())

	require.Equal(t, http.StatusOK, s.ask(token, "GET", "/", nil).Code)
	w = s.ask(token, "GET", "/login?next=/events", nil)
	require.Equal(t, "/relay/events", w.Header().Get("Location"), "who is known need not log in")

	w = s.ask("", "POST", "/login", url.Values{"token": {token}}, "X-Forwarded-Proto", "https")
	require.True(t, w.Result().Cookies()[0].Secure)

	w = s.ask(token, "POST", "/logout", nil)
	require.Equal(t, "/relay/login", w.Header().Get("Location"))
	require.Negative(t, w.Result().Cookies()[0].MaxAge)
}

func TestWrongTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := s.ask("", "POST", "/login", url.Values{"token": {"wrong-<b>-token"}, "next": {"/events"}})
	require.Equal(t, http.StatusUnauthorized, w.Code)
	require.Contains(t, w.Body.String(), text("login.wrong"))
	require.Contains(t, w.Body.String(), `value="/events"`)
	require.NotContains(t, w.Body.String(), "wrong-")
	require.Empty(t, w.Result().Cookies())
	require.Equal(t, http.StatusUnprocessableEntity, s.ask("", "POST", "/login", url.Values{}).Code)

	limited := 0
	for range 30 {
		w = s.ask("", "POST", "/login", url.Values{"token": {"guess"}})
		if w.Code == http.StatusTooManyRequests {
			limited++
			require.NotEmpty(t, w.Header().Get("Retry-After"))
			require.Contains(t, w.Body.String(), "Try again in")
		}
	}
	require.Positive(t, limited)

	w = s.ask("revoked", "GET", "/login", nil)
	require.Equal(t, http.StatusOK, w.Code)
	require.Negative(t, w.Result().Cookies()[0].MaxAge, "a cookie that is good for nothing goes away")
}

func TestLoginLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := s.token(nil, admin.ScopeRead)
	for _, next := range []string{
		"//evil.example", "///evil.example", "https://evil.example/", "javascript:alert(1)", `/\evil.example`, `\\evil.example`, "/\t/evil.example",
		"/\n//evil.example", "evil.example", "", "/login", "/login?next=/login", "/logout", "/..//evil.example", "/.//evil.example",
		" //evil.example", "/" + strings.Repeat("a", maxNext), "/%zz", "/a/../../b", "http:/evil.example", "/%2f/evil.example", "/\x00",
	} {
		w := s.ask("", "POST", "/login", url.Values{"token": {token}, "next": {next}})
		require.Equal(t, http.StatusSeeOther, w.Code, next)
		require.Equal(t, "/", w.Header().Get("Location"), next)
		w = s.ask(token, "GET", "/login?"+url.Values{"next": {next}}.Encode(), nil)
		require.Equal(t, "/", w.Header().Get("Location"), next)
	}
	for _, next := range []string{"/events", "/webhooks/1?cursor=a%2Fb", "/events?type=http://x"} {
		w := s.ask("", "POST", "/login", url.Values{"token": {token}, "next": {next}})
		require.Equal(t, next, w.Header().Get("Location"))
	}
}

func FuzzLocal(f *testing.F) {
	for _, seed := range []string{"/", "//x", `/\x`, "/a?b=//c", "/%2f%2fx", "https://x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, next string) {
		if !local(next) {
			return
		}
		base, err := url.Parse("http://here.example/login")
		require.NoError(t, err)
		to, err := base.Parse(next)
		require.NoError(t, err)
		require.Equal(t, "here.example", to.Host)
		require.Equal(t, "http", to.Scheme)
		require.False(t, strings.HasPrefix(next, "//"))
		require.NotContains(t, next, `\`)
	})
}

func TestTokensSurviveTheCookie(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"walhook_abcDEF123", `with "quotes", commas; and \`, "b64.looks-encoded", "=+/-_.~!"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		http.SetCookie(w, cookie(r, sessionCookie, "/", sessionValue(token), 0))
		r.AddCookie(w.Result().Cookies()[0])
		got, ok := tokenOf(r)
		require.True(t, ok)
		require.Equal(t, token, got)
	}
}

func TestNoticesAreShownOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := s.token(nil, admin.ScopeRead)
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/x", nil)
	w := httptest.NewRecorder()
	notice := `Webhook <script>alert(1)</script> é "saved"; ` + strings.Repeat("ü", flashLimit)
	require.NoError(t, s.ui.done(w, &visit{Request: r}, "/", notice))
	require.Equal(t, http.StatusSeeOther, w.Code)
	c := w.Result().Cookies()[0]
	page := s.ask(token, "GET", "/", nil, "Cookie", sessionCookie+"="+token+"; "+c.Name+"="+c.Value)
	require.Equal(t, http.StatusOK, page.Code)
	require.Contains(t, page.Body.String(), "Webhook &lt;script&gt;alert(1)")
	require.NotContains(t, page.Body.String(), "<script>alert")
	require.Negative(t, page.Result().Cookies()[0].MaxAge)
	for _, forged := range []string{"%%%", "gICA", ""} {
		page = s.ask(token, "GET", "/", nil, "Cookie", sessionCookie+"="+token+"; "+c.Name+"="+forged)
		require.Equal(t, http.StatusOK, page.Code)
		require.NotContains(t, page.Body.String(), `role="status">`+"\x80")
	}

	r.Header.Set("HX-Request", "true")
	w = httptest.NewRecorder()
	require.NoError(t, s.ui.done(w, &visit{Request: r}, "/webhooks", "x"))
	require.Equal(t, "/webhooks", w.Header().Get("HX-Redirect"))
	require.Equal(t, http.StatusOK, w.Code)
}
