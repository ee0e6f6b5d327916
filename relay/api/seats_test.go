package api_test

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/relay/api"
)

// Whoever does not take what they asked for has a bounded number of answers; what is sent has bounds of its own.
func TestAnswersTakeSeats(t *testing.T) {
	t.Parallel()
	s := newService(t)
	gate := admin.NewGate(s.store)
	handler := api.New(api.Options{Store: s.store, Gate: gate, Version: "1.2.3", Log: zerolog.Nop()})
	status := func(method, path string) int {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, s.request(root, method, path, nil).WithContext(ctx))
		return w.Code
	}
	require.Equal(t, 200, status("GET", "/webhooks/"))
	var leaves []func()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		leave, err := gate.Seat(ctx, &admin.Principal{})
		cancel()
		if err != nil {
			break
		}
		leaves = append(leaves, leave)
	}
	require.Equal(t, 503, status("GET", "/webhooks/"))
	require.Equal(t, 404, status("POST", "/webhooks/"+admin.Redacted+"/activate"))
	for _, leave := range leaves {
		leave()
	}
	require.Equal(t, 200, status("GET", "/webhooks/"))
}
