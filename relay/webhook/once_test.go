package webhook_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// TestPostIsNotRepeatedOnAReusedConnection: the second request is read and never answered. Sending it again
// would be a second delivery within one attempt, which net/http would do if it took the POST for replayable.
func TestPostIsNotRepeatedOnAReusedConnection(t *testing.T) {
	for name, end := range map[string]func(*rawConn){
		"closed": func(*rawConn) {},
		"reset":  func(c *rawConn) { c.reset() },
	} {
		t.Run(name, func(t *testing.T) {
			server := newRawServer(t, func(c *rawConn) {
				if c.read() && c.write(okAnswer) && c.read() {
					end(c)
				}
			})
			s := newSender(t)
			require.Equal(t, delivery.ReasonNone, send(t, s, settings(server.url)).Reason)
			require.Equal(t, delivery.ReasonReset, send(t, s, settings(server.url)).Reason)
			require.EqualValues(t, 2, server.requests.Load(), "one request an attempt")
			require.EqualValues(t, 1, server.connections.Load())
		})
	}
}

// TestClosedIdleConnections: the server closes each kept-alive connection while nothing is under way, and the
// next attempt races with that. Where nothing was written yet, the attempt goes over a new connection; where
// the request was on its way, it fails and is not repeated.
func TestClosedIdleConnections(t *testing.T) {
	server := newRawServer(t, func(c *rawConn) {
		if c.read() {
			c.write(okAnswer)
		}
	})
	s := newSender(t)
	const attempts = 500
	succeeded := 0
	for range attempts {
		out := send(t, s, settings(server.url))
		if out.Succeeded() {
			succeeded++
			continue
		}
		require.Equal(t, delivery.ReasonReset, out.Reason, out.Error)
	}
	require.EqualValues(t, succeeded, server.requests.Load(), "an attempt sends one request or, when it failed, none")
	require.NotZero(t, succeeded)
	t.Logf("%d of %d attempts succeeded over %d connections", succeeded, attempts, server.connections.Load())
}

// TestEarlyAnswer: one receiver answers before it has read the request, so that attempts end while the
// transport still reads their bodies. What the other receiver gets at the same time is whole and signed right.
func TestEarlyAnswer(t *testing.T) {
	verifying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("X-Webhook-Signature") != webhook.Sign(secret, body) {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(verifying.Close)
	early := newRawServer(t, func(c *rawConn) {
		_, _ = c.reader.Peek(1)
		c.write("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		_, _ = io.CopyN(io.Discard, c, 1000)
	})
	s := newSender(t)
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for range 10 {
				if worker%2 == 0 {
					out := s.Send(t.Context(), []*delivery.Delivery{newDelivery(bigPayload)}, settings(early.url))
					require.Contains(t, []delivery.Reason{delivery.ReasonStatus, delivery.ReasonReset}, out.Reason)
					continue
				}
				out := s.Send(t.Context(), []*delivery.Delivery{newDelivery(bigPayload)}, settings(verifying.URL))
				require.True(t, out.Succeeded(), out.Error)
			}
		})
	}
	group.Wait()
}

var bigPayload = `"` + stringOf('b', 200<<10) + `"`

func stringOf(c byte, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = c
	}
	return string(b)
}

// TestOnlyAnUnsentRequestIsTriedAgain: what the transport gives back when the server closes an idle
// connection at the moment at which the request gets it depends on a race of microseconds, so it is played.
func TestOnlyAnUnsentRequestIsTriedAgain(t *testing.T) {
	unknown := errors.New("http: server closed idle connection")
	for name, test := range map[string]struct {
		err   error
		reads int64 // of the body, before the error
		times int   // that the transport fails
		calls int
		want  delivery.Reason
	}{
		"unsent, then sent": {unknown, 0, 1, 2, delivery.ReasonNone},
		"unsent twice":      {unknown, 0, 9, 2, delivery.ReasonReset},
		"perhaps sent":      {io.EOF, 1, 1, 1, delivery.ReasonReset},
		"sent, then closed": {unknown, 1, 1, 1, delivery.ReasonReset},
		"sent, not HTTP":    {errors.New("malformed HTTP response"), 1, 1, 1, delivery.ReasonProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t)
			calls := 0
			s.CarryForTest(func(r *http.Request) (*http.Response, error) {
				if calls++; calls <= test.times {
					_, _ = io.CopyN(io.Discard, r.Body, test.reads)
					return nil, test.err
				}
				body, err := io.ReadAll(r.Body)
				require.NoError(t, err)
				require.Equal(t, webhook.Sign(secret, body), r.Header.Get("X-Webhook-Signature"))
				return &http.Response{StatusCode: 204, Body: http.NoBody, Request: r}, nil
			})
			require.Equal(t, test.want, send(t, s, settings("http://example.com")).Reason)
			require.Equal(t, test.calls, calls)
		})
	}
}

// TestManyAtOnce sends from many goroutines and checks that no delivery got another one's body or signature.
func TestManyAtOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	url, got := receiver(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := range got {
			mu.Lock()
			if r.header.Get("X-Webhook-Signature") == webhook.Sign(secret, r.body) {
				seen[string(r.body)]++
			}
			mu.Unlock()
		}
	}()
	s := newSender(t)
	const workers, each = 16, 40
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			set := settings(url)
			set.PayloadFormat = "raw"
			for i := range each {
				out := s.Send(t.Context(), []*delivery.Delivery{newDelivery(stringOf(byte('a'+worker), 1+i*100))}, set)
				require.True(t, out.Succeeded(), out.Error)
				require.Equal(t, "ok", out.Body)
				require.Less(t, out.Duration, 5*time.Second)
			}
		})
	}
	group.Wait()
	close(got)
	<-done
	require.Len(t, seen, workers*each, "each body arrived as it was sent, with its own signature")
}
