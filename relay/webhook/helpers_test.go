package webhook_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is the canary: no Outcome may ever contain it.
const secret = "canary-4a1b6c9e-do-not-show"

func newSender(t testing.TB) *webhook.Sender {
	s := webhook.New(webhook.Options{UserAgent: "walhook/1.2.3", Policy: webhook.Policy{AllowLoopback: true}, Log: zerolog.Nop()})
	t.Cleanup(s.Close)
	return s
}

func newDelivery(payload string) *delivery.Delivery {
	return &delivery.Delivery{
		ID:             uuid.MustParse("0192f0c1-2345-8678-9abc-def012345678"),
		SubscriptionID: uuid.MustParse("11111111-2222-7333-8444-555555555555"),
		Event: &delivery.Event{
			Type:        "patient.created",
			Payload:     []byte(payload),
			CommittedAt: time.Date(2026, 3, 1, 12, 30, 0, 120_000_000, time.UTC),
		},
	}
}

func settings(url string) *delivery.Settings {
	return &delivery.Settings{
		SubscriptionID: uuid.MustParse("11111111-2222-7333-8444-555555555555"),
		URL:            url,
		Secret:         secret,
		Timeout:        5 * time.Second,
		Active:         true,
	}
}

// send makes one attempt of a small delivery and checks what holds for every Outcome.
func send(t *testing.T, s *webhook.Sender, set *delivery.Settings) delivery.Outcome {
	t.Helper()
	return sendContext(t, t.Context(), s, set)
}

func sendContext(t *testing.T, ctx context.Context, s *webhook.Sender, set *delivery.Settings) delivery.Outcome {
	t.Helper()
	out := s.Send(ctx, []*delivery.Delivery{newDelivery(`{"name":"Ada"}`)}, set)
	checkOutcome(t, out)
	return out
}

func checkOutcome(t *testing.T, out delivery.Outcome) {
	t.Helper()
	require.NotContains(t, out.Error, secret)
	require.NotContains(t, out.Body, secret)
	require.NotContains(t, out.Error, "\x00")
	require.LessOrEqual(t, len(out.Error), 300)
	require.Equal(t, out.Succeeded(), out.Error == "", "an error text, and only then, when it failed: %q", out.Error)
	require.False(t, out.StartedAt.IsZero())
}

// request is what a receiver got.
type request struct {
	header http.Header
	body   []byte
	method string
	host   string
	path   string
}

// receiver starts a server that records requests and answers with answer.
func receiver(t testing.TB, answer http.HandlerFunc) (url string, got chan request) {
	t.Helper()
	got = make(chan request, 16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		got <- request{r.Header, body, r.Method, r.Host, r.URL.RequestURI()}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, got
}

func ok(http.ResponseWriter, *http.Request) {}

// rawServer answers with bytes of its own making: handle gets each connection, which is closed when it
// returns.
type rawServer struct {
	url         string
	connections atomic.Int32
	requests    atomic.Int32

	mu    sync.Mutex
	open  []net.Conn
	tasks sync.WaitGroup
}

func newRawServer(t testing.TB, handle func(c *rawConn)) *rawServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &rawServer{url: "http://" + listener.Addr().String() + "/hook"}
	s.tasks.Go(func() { s.accept(listener, handle) })
	t.Cleanup(func() {
		_ = listener.Close()
		s.mu.Lock()
		for _, conn := range s.open {
			_ = conn.Close()
		}
		s.mu.Unlock()
		s.tasks.Wait()
	})
	return s
}

func (s *rawServer) accept(listener net.Listener, handle func(c *rawConn)) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open = append(s.open, conn)
		s.mu.Unlock()
		c := &rawConn{Conn: conn, server: s, number: int(s.connections.Add(1)), reader: bufio.NewReader(conn)}
		s.tasks.Go(func() {
			defer func() { _ = conn.Close() }()
			handle(c)
		})
	}
}

type rawConn struct {
	net.Conn
	server *rawServer
	number int
	reader *bufio.Reader
}

// read reads one whole request and reports whether there was one.
func (c *rawConn) read() bool {
	r, err := http.ReadRequest(c.reader)
	if err != nil {
		return false
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return false
	}
	c.server.requests.Add(1)
	return true
}

// write writes text and reports whether the other side still takes it.
func (c *rawConn) write(text string) bool {
	_, err := io.WriteString(c, text)
	return err == nil
}

// reset closes the connection with RST instead of FIN.
func (c *rawConn) reset() { _ = c.Conn.(*net.TCPConn).SetLinger(0) }

// answering serves every request with the same text, on connections that stay open.
func answering(text string) func(*rawConn) {
	return func(c *rawConn) {
		for c.read() && c.write(text) {
		}
	}
}

// answeringOnce serves one request and closes.
func answeringOnce(text string) func(*rawConn) {
	return func(c *rawConn) {
		if c.read() {
			c.write(text)
		}
	}
}
