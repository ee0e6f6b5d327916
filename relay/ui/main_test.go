package ui

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// site is a dashboard on a database of its own.
type site struct {
	http.Handler
	t     testing.TB
	db    *pgxpool.Pool
	store *admin.Store
	ui    *UI
	log   *strings.Builder
}

func newSite(t *testing.T, change ...func(*Options)) *site {
	t.Helper()
	db := harness.Connect(t, harness.Database(t))
	s := &site{t: t, db: db, store: admin.New(db, admin.Options{Slot: "walhook"}), log: &strings.Builder{}}
	o := Options{Store: s.store, Gate: admin.NewGate(s.store), Version: "v0.0.0-test", Log: zerolog.New(s.log),
		State: func() State { return State{Ready: true, Name: "running"} }}
	for _, c := range change {
		c(&o)
	}
	s.ui = newUI(o)
	s.Handler = s.ui.handler()
	return s
}

// token makes a token; without a tenant it is for all.
func (s *site) token(tenant *string, scopes ...admin.Scope) string {
	s.t.Helper()
	_, token, err := s.store.CreateToken(s.t.Context(), admin.NewToken{Name: "test " + uuid.NewString(), Scopes: scopes, Tenant: tenant})
	require.NoError(s.t, err)
	return token
}

// ask sends a request with a token; empty: a stranger's. A form makes it a POST's body.
func (s *site) ask(token, method, path string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(form.Encode()))
	if form != nil || method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		r.AddCookie(&http.Cookie{Name: sessionCookie, Value: sessionValue(token)})
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}
