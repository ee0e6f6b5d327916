package api_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/test/harness"
)

// Tests may wait for minutes. The memory for bodies must not wait with them, or a few of one tenant would keep all others
// from publishing.
func TestTestsThatWaitHoldNoMemoryForBodies(t *testing.T) {
	t.Parallel()
	s := newService(t)
	one, other := "one", "other"
	mine, theirs := s.token(&one, admin.ScopeManage), s.token(&other, admin.ScopePublish)
	id := s.do(mine, "POST", "/webhooks/", `{"name": "slow", "url": "http://localhost/", "timeout": 300}`).wants(t, 201).object(t)["id"].(string)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const tests = 7 // which may have more together than there is memory for
	for range tests {
		body := io.NopCloser(strings.NewReader(`{"test_data": "` + strings.Repeat("x", 100<<10) + `"}`))
		go func() {
			r := s.request(mine, "POST", "/webhooks/"+id+"/test", nil).WithContext(ctx)
			r.Body, r.ContentLength = body, -1 // which counts as the largest
			if response, err := s.server.Client().Do(r); err == nil {
				_ = response.Body.Close()
			}
		}()
	}
	harness.Eventually(t, 20*time.Second, "all tests are on their way", func() bool {
		var n int
		require.NoError(t, s.db.QueryRow(t.Context(), "SELECT count(*) FROM outbox.deliveries").Scan(&n))
		return n == tests
	})
	soon, enough := context.WithTimeout(t.Context(), 10*time.Second)
	defer enough()
	s.send(s.request(theirs, "POST", "/webhooks/events/trigger", strings.NewReader(`{"event_type": "a.b", "event_data": "`+strings.Repeat("x", 100<<10)+`"}`)).WithContext(soon)).wants(t, 202)
}
