package receiver_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
)

// request is signed in walhook's way.
func request(t *testing.T, id, text string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/webhooks", strings.NewReader(text))
	r.Header = signed(t, receiver.SHA256, now, text, "s3cret")
	r.Header.Set("Content-Type", "application/json")
	if id != "" {
		r.Header.Set("X-Webhook-ID", id)
	}
	return r
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func endpoint(t *testing.T) receiver.Endpoint {
	t.Helper()
	return receiver.Endpoint{Verifier: verifier(t, receiver.SHA256, "s3cret")}
}

// counting answers with status and counts its requests.
type counting struct {
	status, calls int
	bodies        []string
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.calls++
	text, _ := io.ReadAll(r.Body)
	c.bodies = append(c.bodies, string(text), string(receiver.Body(r)))
	w.WriteHeader(c.status)
}

func TestMiddlewareLetsThroughWhatIsVerified(t *testing.T) {
	t.Parallel()
	next := &counting{status: 204}
	h := endpoint(t).Middleware(next)
	require.Equal(t, 204, serve(h, request(t, "d-1", body)).Code)
	require.Equal(t, []string{body, body}, next.bodies, "the body may be read, and is there afterwards")

	for _, spoil := range []func(*http.Request){
		func(r *http.Request) { r.Header.Del("X-Webhook-Signature") },
		func(r *http.Request) { r.Header.Set("X-Webhook-Signature", "sha256=00") },
		func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(body + " ")) },
	} {
		r := request(t, "d-1", body)
		spoil(r)
		require.Equal(t, http.StatusUnauthorized, serve(h, r).Code)
	}
	require.Equal(t, 1, next.calls)
	require.Nil(t, receiver.Body(httptest.NewRequest(http.MethodPost, "/", nil)))
	require.Panics(t, func() { receiver.Endpoint{}.Middleware(next) }, "nothing is verified")
}

func TestMiddlewareBoundsBodies(t *testing.T) {
	t.Parallel()
	next := &counting{status: 200}
	e := endpoint(t)
	e.MaxBody = 10
	require.Equal(t, 200, serve(e.Middleware(next), request(t, "", strings.Repeat("x", 10))).Code)
	require.Equal(t, http.StatusRequestEntityTooLarge, serve(e.Middleware(next), request(t, "", strings.Repeat("x", 11))).Code)
	h := endpoint(t).Middleware(next)
	require.Equal(t, 200, serve(h, request(t, "", strings.Repeat("x", receiver.DefaultMaxBody))).Code)
	require.Equal(t, http.StatusRequestEntityTooLarge, serve(h, request(t, "", strings.Repeat("x", receiver.DefaultMaxBody+1))).Code)
	broken := request(t, "", body)
	broken.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), failingReader{}))
	require.Equal(t, http.StatusBadRequest, serve(h, broken).Code)
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestMiddlewareHandlesOnce(t *testing.T) {
	t.Parallel()
	next := &counting{status: 500}
	e := endpoint(t)
	e.Seen = receiver.NewMemory(10, time.Hour)
	h := e.Middleware(next)
	require.Equal(t, 500, serve(h, request(t, "d-1", body)).Code)
	next.status = 201
	require.Equal(t, 201, serve(h, request(t, "d-1", body)).Code, "what failed is handled again")
	require.Equal(t, 200, serve(h, request(t, "d-1", body)).Code)
	require.Equal(t, 2, next.calls)
	require.Equal(t, 201, serve(h, request(t, "d-2", body)).Code)
	require.Equal(t, 201, serve(h, request(t, "", body)).Code)
	require.Equal(t, 201, serve(h, request(t, "", body)).Code, "without an id none is the other's duplicate")

	forged := request(t, "d-3", body)
	forged.Header.Set("X-Webhook-Signature", "sha256=00")
	require.Equal(t, 401, serve(h, forged).Code)
	require.Equal(t, 201, serve(h, request(t, "d-3", body)).Code, "a forgery cannot mark an id")
}

func TestMiddlewareForgetsWhatPanicked(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	e.Seen = receiver.NewMemory(10, time.Hour)
	calls := 0
	h := e.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if calls++; calls == 1 {
			panic(http.ErrAbortHandler)
		}
	}))
	require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { serve(h, request(t, "d-1", body)) })
	require.Equal(t, 200, serve(h, request(t, "d-1", body)).Code)
	require.Equal(t, 2, calls)
	serve(h, request(t, "d-1", body))
	require.Equal(t, 2, calls, "a handler that writes nothing has succeeded")
}

func TestMiddlewareRefusesWhatIsInProgress(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	e.Seen = receiver.NewMemory(10, time.Hour)
	entered, leave, calls := make(chan struct{}), make(chan struct{}), 0
	h := e.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.WriteHeader(http.StatusEarlyHints) // is not the answer yet
		close(entered)
		<-leave
		w.WriteHeader(http.StatusNoContent)
	}))
	first := make(chan int)
	r := request(t, "d-1", body)
	go func() { first <- serve(h, r).Code }()
	<-entered
	require.Equal(t, http.StatusConflict, serve(h, request(t, "d-1", body)).Code)
	close(leave)
	<-first
	require.Equal(t, 200, serve(h, request(t, "d-1", body)).Code)
	require.Equal(t, 1, calls)
}

// What a handler writes without a status is a 200, and its response can still be controlled.
func TestMiddlewareKeepsTheResponseUsable(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	e.Seen = receiver.NewMemory(10, time.Hour)
	h := e.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "taken")
		require.NoError(t, http.NewResponseController(w).Flush())
		w.WriteHeader(http.StatusInternalServerError) // too late: 200 is what the sender got
		require.NoError(t, r.Body.Close())
	}))
	w := serve(h, request(t, "d-1", body))
	require.Equal(t, []any{200, "taken", true}, []any{w.Code, w.Body.String(), w.Flushed})
	require.Equal(t, "handled before\n", serve(h, request(t, "d-1", body)).Body.String())
}

// brokenStore fails to claim, or to settle.
type brokenStore struct{ claims bool }

var errStore = errors.New("the store is down")

func (b brokenStore) Claim(context.Context, string) (receiver.Claim, error) {
	if b.claims {
		return b, nil
	}
	return nil, errStore
}
func (brokenStore) Done(context.Context) error    { return errStore }
func (brokenStore) Release(context.Context) error { return errStore }

func TestMiddlewareWithoutItsStore(t *testing.T) {
	t.Parallel()
	var failed []error
	next := &counting{status: 200}
	e := endpoint(t)
	e.Failed = func(_ *http.Request, err error) { failed = append(failed, err) }
	e.Seen = brokenStore{}
	require.Equal(t, http.StatusServiceUnavailable, serve(e.Middleware(next), request(t, "d-1", body)).Code)
	require.Zero(t, next.calls)
	e.Seen = brokenStore{claims: true}
	require.Equal(t, 200, serve(e.Middleware(next), request(t, "d-1", body)).Code)
	require.Equal(t, []error{errStore, errStore}, failed)
}

// remembering notes the context under which a claim is settled.
type remembering struct{ err error }

func (s *remembering) Claim(context.Context, string) (receiver.Claim, error) { return s, nil }
func (s *remembering) Done(ctx context.Context) error                        { s.err = ctx.Err(); return nil }
func (s *remembering) Release(context.Context) error                         { panic("it succeeded") }

func TestMiddlewareMarksThoughTheSenderHasGone(t *testing.T) {
	t.Parallel()
	store := &remembering{err: errStore}
	e := endpoint(t)
	e.Seen = store
	ctx, cancel := context.WithCancel(t.Context())
	h := e.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel() }))
	serve(h, request(t, "d-1", body).WithContext(ctx))
	require.NoError(t, store.err)
}

func TestCloudEventsSendersAskFirst(t *testing.T) {
	t.Parallel()
	next := &counting{status: 200}
	e := endpoint(t)
	e.CloudEventsOrigins = []string{"events.example.com"}
	ask := func(h http.Handler, origin string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodOptions, "/webhooks", nil)
		r.Header.Set("WebHook-Request-Origin", origin)
		r.Header.Set("WebHook-Request-Rate", "120")
		return serve(h, r)
	}
	w := ask(e.Middleware(next), "events.example.com")
	require.Equal(t, 200, w.Code)
	require.Equal(t, []string{"events.example.com", "*", "POST"},
		[]string{w.Header().Get("WebHook-Allowed-Origin"), w.Header().Get("WebHook-Allowed-Rate"), w.Header().Get("Allow")})
	w = ask(e.Middleware(next), "evil.example.com")
	require.Equal(t, http.StatusForbidden, w.Code)
	require.Empty(t, w.Header().Get("WebHook-Allowed-Origin"))
	require.Equal(t, http.StatusForbidden, ask(e.Middleware(next), "").Code, "that is no such question")
	e.CloudEventsOrigins = []string{"*"}
	require.Equal(t, "evil.example.com", ask(e.Middleware(next), "evil.example.com").Header().Get("WebHook-Allowed-Origin"))
	e.CloudEventsOrigins = nil
	require.Equal(t, http.StatusUnauthorized, ask(e.Middleware(next), "events.example.com").Code)
	require.Zero(t, next.calls)
}

func TestSlackIsAnsweredWhenAskedFor(t *testing.T) {
	t.Parallel()
	next := &counting{status: 204}
	const question = `{"token":"x","challenge":"<3eZbrw1a>","type":"url_verification"}`
	e := endpoint(t)
	require.Equal(t, 204, serve(e.Middleware(next), request(t, "", question)).Code)
	e.SlackChallenge = true
	w := serve(e.Middleware(next), request(t, "", question))
	require.Equal(t, []any{200, "<3eZbrw1a>", "text/plain; charset=utf-8"}, []any{w.Code, w.Body.String(), w.Header().Get("Content-Type")})
	require.Equal(t, 1, next.calls)
	require.Equal(t, 204, serve(e.Middleware(next), request(t, "", `{"type":"event_callback","challenge":"x"}`)).Code)
	forged := request(t, "", question)
	forged.Header.Del("X-Webhook-Signature")
	require.Equal(t, http.StatusUnauthorized, serve(e.Middleware(next), forged).Code)
}

// Who can read a request can send it again. With Standard Webhooks it is recognised whatever else its headers say,
// because the id is signed.
func TestSignedIDsCannotBeExchanged(t *testing.T) {
	t.Parallel()
	e, next := receiver.Endpoint{Verifier: verifier(t, receiver.Standard, standardSecret), Seen: receiver.NewMemory(10, time.Hour)}, &counting{status: 200}
	for _, other := range []string{"d-1", "d-2", ""} {
		r := httptest.NewRequest(http.MethodPost, "/webhooks", strings.NewReader(body))
		r.Header = signed(t, receiver.Standard, now, body, standardSecret)
		r.Header.Set("X-Webhook-ID", other)
		require.Equal(t, 200, serve(e.Middleware(next), r).Code)
	}
	require.Equal(t, 1, next.calls)
}

func TestIDsOfSenders(t *testing.T) {
	t.Parallel()
	for want, header := range map[string]map[string]string{
		"d-1":    {"X-Webhook-ID": "d-1", "X-GitHub-Delivery": "d-2"},
		"d-2":    {"X-Webhook-ID": "d-1", "webhook-id": "d-2"},
		"msg_1":  {"webhook-id": "msg_1"},
		"gh-1":   {"X-GitHub-Delivery": "gh-1"},
		"shop-1": {"X-Shopify-Webhook-Id": "shop-1"},
		"/a 1":   {"ce-id": "1", "ce-source": "/a"},
		"":       {"ce-source": "/a"},
	} {
		h := http.Header{}
		for name, value := range header {
			h.Set(name, value)
		}
		require.Equal(t, want, receiver.IDOf(h))
	}
	for _, odd := range []string{"\xff", strings.Repeat("x", 301)} {
		h := http.Header{"X-Webhook-Id": {odd}}
		require.Regexp(t, `^sha256 [0-9a-f]{64}$`, receiver.IDOf(h), "a store might not keep it as it is")
	}
}
