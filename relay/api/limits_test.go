package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/relay/api"
)

// endless is a body that never ends, and counts what was taken of it.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.n += int64(len(p))
	return len(p), nil
}

func TestBodiesThatAreTooLarge(t *testing.T) {
	t.Parallel()
	s := newService(t)
	large := strings.Repeat(" ", api.SmallBody+1-len(minimal)) + minimal
	s.do(root, "POST", "/webhooks/", large).refused(t, 413, "")
	s.do(root, "POST", "/webhooks/", large[1:]).wants(t, 201)
	for path, most := range map[string]int64{"/webhooks/": api.SmallBody, "/webhooks/events/trigger": api.LargeBody} {
		declared := s.request(root, "POST", path, nil)
		declared.Body, declared.ContentLength = io.NopCloser(&endless{}), 10<<30
		recorder := httptest.NewRecorder()
		s.handler.ServeHTTP(recorder, declared)
		require.Equal(t, 413, recorder.Code)

		body := &endless{}
		chunked := s.request(root, "POST", path, nil)
		chunked.Body, chunked.ContentLength = io.NopCloser(body), -1
		recorder = httptest.NewRecorder()
		s.handler.ServeHTTP(recorder, chunked)
		require.Equal(t, 413, recorder.Code, recorder.Body)
		require.Equal(t, "close", recorder.Header().Get("Connection"))
		require.LessOrEqual(t, body.n, most+most/2+1<<20, "it stops reading")
	}
}

func TestTenGigabytesOverTheWire(t *testing.T) {
	t.Parallel()
	s := newService(t)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "POST /api/v1/webhooks/events/trigger HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n", root)
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<20, strings.Repeat(" ", 1<<20))
	sent := 0
	for err == nil && sent < 10<<10 {
		_, err = io.WriteString(conn, chunk)
		sent++
	}
	runtime.ReadMemStats(&after)
	require.Error(t, err, "the connection is closed")
	require.Less(t, sent, 100, "after some megabytes")
	require.Less(t, after.HeapInuse, before.HeapInuse+200<<20)
}

func TestSlowBodies(t *testing.T) {
	t.Parallel()
	s := newService(t)
	api.LimitBodyTime(s.handler, 300*time.Millisecond)
	for _, token := range []string{root, ""} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.server.Listener.Addr().String())
		require.NoError(t, err)
		_, err = fmt.Fprintf(conn, "POST /api/v1/webhooks/ HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 50\r\n\r\n{", token)
		require.NoError(t, err)
		text, err := io.ReadAll(conn) // until the server has closed it
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		want := "408"
		if token == "" {
			want = "401"
		}
		require.Contains(t, string(text), "HTTP/1.1 "+want)
	}
}

func TestRestOfABodyThatNobodyReadsIsNotAwaitedForever(t *testing.T) {
	t.Parallel()
	s := newService(t)
	api.LimitBodyTime(s.handler, 300*time.Millisecond)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "GET /api/v1/webhooks/ HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 50\r\n\r\n{", root)
	require.NoError(t, err)
	text, err := io.ReadAll(conn) // until the server has closed it
	require.NoError(t, err)
	require.Contains(t, string(text), "HTTP/1.1 200")
}

func TestWorkMayTakeLongerThanABody(t *testing.T) {
	t.Parallel()
	s := newService(t)
	api.LimitBodyTime(s.handler, 100*time.Millisecond)
	api.AddRoute(s.handler, "GET /api/v1/works", admin.ScopeRead, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			w.WriteHeader(500)
		case <-time.After(400 * time.Millisecond):
		}
	}))
	s.do(root, "GET", "/works", "").wants(t, 200)
	s.do(root, "GET", "/works", "").wants(t, 200) // over the same connection
}

func TestBodyThatIsCutShort(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, framed := range []string{"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "Content-Length: -5\r\n\r\n"} {
		status := s.raw(t, "POST /api/v1/webhooks/ HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+root+"\r\nConnection: close\r\n"+framed)
		require.Equal(t, "400", status, framed)
	}
}

func TestLargeBodiesWaitForMemory(t *testing.T) {
	t.Parallel()
	s := newService(t)
	api.LimitBodyTime(s.handler, 300*time.Millisecond)
	release := api.TakeBodyMemory(s.handler)
	large := `{"event_type": "x", "event_data": "` + strings.Repeat("x", 1<<20) + `"}`
	a := s.do(root, "POST", "/webhooks/events/trigger", large)
	a.refused(t, 503, "")
	require.NotEmpty(t, a.Header.Get("Retry-After"))
	s.do(root, "POST", "/webhooks/events/trigger", `{"event_type": "x"}`).wants(t, 202)
	release()
	s.do(root, "POST", "/webhooks/events/trigger", large).wants(t, 202)
	api.TakeBodyMemory(s.handler)() // it has been given back
}

func TestMediaTypes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	path := "/webhooks/" + s.create(root, minimal)["id"].(string)
	for _, name := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", ""} {
		s.do(root, "POST", "/webhooks/", minimal, "Content-Type", name).wants(t, 201)
		s.do(root, "PATCH", path, `{"name": "b"}`, "Content-Type", name).wants(t, 200)
	}
	for _, name := range []string{"text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data; boundary=x", "application/json; charset=latin1", ";", "application/merge-patch+json"} {
		s.do(root, "POST", "/webhooks/", minimal, "Content-Type", name).refused(t, 415, "")
	}
	s.do(root, "POST", "/webhooks/", minimal, "Content-Encoding", "gzip").refused(t, 415, "")
	s.do(root, "GET", "/webhooks/", "", "Accept", "text/html").wants(t, 200)
}

func TestFloodOfHeaders(t *testing.T) {
	t.Parallel()
	s := newService(t)
	status := s.raw(t, "GET /api/v1/webhooks/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+strings.Repeat("X-A: "+strings.Repeat("x", 1000)+"\r\n", 1100)+"\r\n")
	require.Equal(t, "431", status)
	s.do(root, "GET", "/webhooks/?"+strings.Repeat("x", 100_000)+"=1", "").refused(t, 422, "query."+strings.Repeat("x", 94)+"…")
	s.do(root, "GET", "/webhooks/?cursor="+strings.Repeat("x", 100_000), "").refused(t, 422, "query.cursor")
	long := s.do(root, "GET", "/"+strings.Repeat("x", 100_000), "").refused(t, 404, "")
	require.Less(t, len(long["detail"].(string)), 300)
}

func TestPanicsAreAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const secret = "not-for-the-log"
	api.AddRoute(s.handler, "GET /api/v1/panics", admin.ScopeRead, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(errors.New(secret)) }))
	api.AddRoute(s.handler, "GET /api/v1/panics-late", admin.ScopeRead, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		panic(secret)
	}))
	p := s.do(root, "GET", "/panics", "").refused(t, 500, "")
	require.NotEmpty(t, p["request_id"])
	require.Contains(t, s.log.text(), p["request_id"])
	require.Contains(t, s.log.text(), "GET /api/v1/panics")
	_, err := http.DefaultClient.Do(s.request(root, "GET", "/panics-late", nil))
	require.Error(t, err, "an answer that is cut short shows")
	require.NotContains(t, s.log.text(), secret)
	require.NotContains(t, s.log.text(), root)
}

func TestDatabaseOutOfReach(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(context.Background(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=1")
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	s := serve(t, pool)
	a := s.do(root, "GET", "/webhooks/?cursor=the-query", "")
	if a.StatusCode == 422 { // the cursor was looked at first
		a = s.do(root, "GET", "/webhooks/", "")
	}
	p := a.refused(t, 503, "")
	require.NotEmpty(t, a.Header.Get("Retry-After"))
	require.NotContains(t, string(a.text), "127.0.0.1")
	require.Contains(t, s.log.text(), p["request_id"])
	require.NotContains(t, s.log.text(), "the-query")
	require.NotContains(t, s.log.text(), root)
}

func TestFailuresShowNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	_, err := s.db.Exec(t.Context(), "ALTER TABLE outbox.subscriptions RENAME TO gone")
	require.NoError(t, err)
	a := s.do(root, "POST", "/webhooks/", `{"name": "the-name", "url": "https://example.com/", "secret": "the-secret"}`)
	p := a.refused(t, 500, "")
	require.NotContains(t, string(a.text), "subscriptions")
	require.Contains(t, s.log.text(), p["request_id"])
	require.Equal(t, 1, strings.Count(s.log.text(), "\n"), "once: %s", s.log.text())
	for _, secret := range []string{"the-name", "the-secret", root} {
		require.NotContains(t, s.log.text(), secret)
	}
}
