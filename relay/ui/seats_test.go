package ui

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// Whoever does not take what they asked for has a bounded number of answers, and forms and live pages need none of them.
func TestPagesTakeSeats(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	tenant := "acme"
	token := s.token(&tenant, admin.Scopes...)
	status := func(method, path string) int {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, method, path, nil)
		r.AddCookie(&http.Cookie{Name: sessionCookie, Value: token})
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code
	}
	require.Equal(t, http.StatusOK, status("GET", "/webhooks/new"))
	var leaves []func()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		leave, err := s.ui.Gate.Seat(ctx, &admin.Principal{Tenant: &tenant})
		cancel()
		if err != nil {
			break
		}
		leaves = append(leaves, leave)
	}
	require.Equal(t, http.StatusServiceUnavailable, status("GET", "/webhooks/new"))
	require.Equal(t, http.StatusUnprocessableEntity, status("POST", "/webhooks"))
	require.Equal(t, http.StatusOK, status("GET", "/webhooks/live"))
	for _, leave := range leaves {
		leave()
	}
	require.Equal(t, http.StatusOK, status("GET", "/webhooks/new"))
}
