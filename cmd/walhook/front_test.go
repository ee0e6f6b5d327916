package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// pipes is a listener whose connections are in memory, so that their deadlines pass in no time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// piped serves a handler as every front does, and returns how to connect.
func piped(t *testing.T, handler http.Handler) func() net.Conn {
	p := &pipes{make(chan net.Conn), make(chan struct{})}
	server := (&service{log: zerolog.Nop()}).newServer(t.Context(), handler)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(p) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return func() net.Conn {
		ours, theirs := net.Pipe()
		p.conns <- theirs
		return ours
	}
}

// A body that does not come holds nothing for ever, although nobody reads it: strangers send such.
func TestAFrontDoesNotAwaitABodyForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refuses := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
		conn := piped(t, refuses)()
		began := time.Now()
		go func() { _, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{") }()
		text, err := io.ReadAll(conn) // until the server has closed it
		require.NoError(t, err)
		require.Contains(t, string(text), "HTTP/1.1 401")
		require.Equal(t, bodyTimeout, time.Since(began))
	})
}

// A client that does not take its answer loses the connection.
func TestAFrontDoesNotHoldAnAnswerForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan time.Duration, 1)
		began := time.Now()
		conn := piped(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := io.WriteString(w, strings.Repeat("x", 1<<20))
			if err != nil {
				ended <- time.Since(began)
			}
		}))()
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		require.Equal(t, answerTimeout, <-ended)
	})
}

// Whoever listens may do so for hours, when it says so by a deadline of its own with every message, as the dashboard does.
func TestAFrontLetsPagesListen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn := piped(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := http.NewResponseController(w)
			for tick := time.NewTicker(time.Minute); ; {
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = io.WriteString(w, "x\n")
				if c.Flush() != nil {
					return
				}
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
				}
			}
		}))()
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		lines := bufio.NewReader(conn)
		for n := 0; n < 180; {
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			if line == "x\n" {
				n++
			}
		}
		require.NoError(t, conn.Close())
	})
}

// The requests of a front end with it.
func TestARequestEndsWithItsFront(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base, leave := context.WithCancel(t.Context())
		server := (&service{log: zerolog.Nop()}).newServer(base, http.NotFoundHandler())
		leave()
		require.Error(t, server.BaseContext(nil).Err())
	})
}

// A client that neither takes its answer nor sends its body does not hold up the engine's end: the relay starts anew only
// after that.
func TestAFaceClosesOnWhoHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := answering(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				_, _ = io.Copy(io.Discard, r.Body)
				return
			}
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		}))
		f.open.Store(true)
		connect := piped(t, answers(f))
		for _, request := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"} {
			_, err := io.WriteString(connect(), request)
			require.NoError(t, err)
		}
		synctest.Wait()
		began := time.Now()
		f.close()
		require.Equal(t, faceGrace, time.Since(began))
	})
}

// What the dashboard looks up for many outlives the request that asks, but not the engine.
func TestALookEndsWithItsFace(t *testing.T) {
	t.Parallel()
	f := answering(http.NotFoundHandler())
	ctx, done := f.within(context.WithoutCancel(t.Context()))
	defer done()
	require.NoError(t, ctx.Err())
	f.close()
	<-ctx.Done()
}
