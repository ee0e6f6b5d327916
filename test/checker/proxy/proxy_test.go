package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/walhook/walhook/test/checker/proxy"
)

// A goroutine that a closed proxy left behind fails the package.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should come at once.
const patience = 30 * time.Second

// newTarget listens, and gives out the connections that it accepts.
func newTarget(t *testing.T) (addr string, accepted <-chan *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	conns, ended := make(chan *net.TCPConn, 10), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns <- conn.(*net.TCPConn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
		for len(conns) > 0 {
			_ = (<-conns).Close()
		}
	})
	return listener.Addr().String(), conns
}

func newProxy(t *testing.T, target string) *proxy.Proxy {
	t.Helper()
	p, err := proxy.New(target)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// dial connects to an address; reads and writes fail when they take longer than patience.
func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	return limited(t, conn.(*net.TCPConn))
}

func limited(t *testing.T, conn *net.TCPConn) *net.TCPConn {
	t.Helper()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// next is the connection that the target accepts next.
func next(t *testing.T, accepted <-chan *net.TCPConn) *net.TCPConn {
	t.Helper()
	select {
	case conn := <-accepted:
		return limited(t, conn)
	case <-time.After(patience):
		t.Fatal("the target was not reached")
		return nil
	}
}

// pair is a connection through the proxy: the client's end and the target's. A byte has passed, so that both
// are known to belong together by now.
func pair(t *testing.T, p *proxy.Proxy, accepted <-chan *net.TCPConn) (client, server *net.TCPConn) {
	t.Helper()
	client = dial(t, p.Addr())
	send(t, client, "?")
	server = next(t, accepted)
	requireReads(t, server, "?")
	return client, server
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
}

func requireReads(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	_, err := io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// requireReset reads to the end, which must be a reset, and returns what came before.
func requireReset(t *testing.T, conn net.Conn) string {
	t.Helper()
	got, err := io.ReadAll(conn)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	return string(got)
}

// requireRefused connects and must be reset. That may come before connecting has returned.
func requireRefused(t *testing.T, p *proxy.Proxy) {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	require.NoError(t, err)
	require.Empty(t, requireReset(t, limited(t, conn.(*net.TCPConn))))
}

// requireSilent fails when a byte or an end comes. Only waiting can tell that nothing does.
func requireSilent(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
}

func requireClosed(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal("the channel was not closed")
	}
}

func TestForwardsHTTP(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // the client sees what is missing
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	p := newProxy(t, server.Listener.Addr().String())
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)

	var posts sync.WaitGroup
	for i := range 20 {
		posts.Go(func() {
			sent := bytes.Repeat([]byte{byte(i)}, 100_000+i)
			response, err := (&http.Client{Transport: transport}).Post("http://"+p.Addr(), "", bytes.NewReader(sent))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = response.Body.Close() }()
			got, err := io.ReadAll(response.Body)
			if err != nil || !bytes.Equal(sent, got) {
				t.Errorf("post %d: %d bytes came back, %v", i, len(got), err)
			}
		})
	}
	posts.Wait()
}

func TestPassesOnHowAConnectionEnds(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)

	client, server := pair(t, p, accepted)
	send(t, client, "question")
	require.NoError(t, client.CloseWrite())
	got, err := io.ReadAll(server)
	require.NoError(t, err, "an end is an end")
	require.Equal(t, "question", string(got))
	send(t, server, "answer")
	requireReads(t, client, "answer")
	require.Equal(t, 1, p.Conns(), "one side may end before the other")

	client, server = pair(t, p, accepted)
	send(t, server, "answer")
	requireReads(t, client, "answer")
	require.NoError(t, server.SetLinger(0))
	require.NoError(t, server.Close())
	require.Empty(t, requireReset(t, client), "a reset is a reset")
}

func TestCountsConnections(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	require.Zero(t, p.Conns())
	client, server := pair(t, p, accepted)
	pair(t, p, accepted)
	require.Equal(t, 2, p.Conns())

	require.NoError(t, client.Close())
	_, err := io.ReadAll(server)
	require.NoError(t, err)
	require.NoError(t, server.Close())
	require.Eventually(t, func() bool { return p.Conns() == 1 }, patience, time.Millisecond)
	p.Cut()
	require.Zero(t, p.Conns())
}

func TestRetargetsNewConnections(t *testing.T) {
	t.Parallel()
	first, acceptedByFirst := newTarget(t)
	second, acceptedBySecond := newTarget(t)
	p := newProxy(t, first)
	old, oldServer := pair(t, p, acceptedByFirst)
	p.Retarget(second)
	pair(t, p, acceptedBySecond)
	send(t, old, "x")
	requireReads(t, oldServer, "x")
}

func TestResetsWhenTheTargetIsDown(t *testing.T) {
	t.Parallel()
	p := newProxy(t, "127.0.0.1:1") // where nobody listens
	requireRefused(t, p)

	addr, accepted := newTarget(t)
	p.Retarget(addr)
	pair(t, p, accepted)
}

func TestCut(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	for range 2 { // the second time through the same proxy
		client, server := pair(t, p, accepted)
		other, otherServer := pair(t, p, accepted)
		send(t, client, "x")
		requireReads(t, server, "x")
		p.Cut()
		for _, conn := range []net.Conn{client, server, other, otherServer} {
			require.Empty(t, requireReset(t, conn))
		}
	}
}

func TestCutAfterPassesPartOfAChunk(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	client, server := pair(t, p, accepted)
	other, otherServer := pair(t, p, accepted)
	send(t, client, "not counted")
	requireReads(t, server, "not counted")

	happened := p.CutAfter(4)
	send(t, client, "0123456789")
	require.Equal(t, "0123", requireReset(t, server))
	for _, conn := range []net.Conn{client, other, otherServer} {
		require.Empty(t, requireReset(t, conn))
	}
	requireClosed(t, happened)

	client, server = pair(t, p, accepted)
	send(t, client, "0123456789")
	requireReads(t, server, "0123456789")
}

func TestCutAfterCountsEverythingThatPasses(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	client, server := pair(t, p, accepted)
	other, otherServer := pair(t, p, accepted)

	happened := p.CutAfter(10)
	send(t, client, "0123")
	requireReads(t, server, "0123")
	send(t, server, "4567")
	requireReads(t, client, "4567")
	send(t, other, "8")
	requireReads(t, otherServer, "8")
	select {
	case <-happened:
		t.Fatal("one byte was left")
	default:
	}
	send(t, otherServer, "9")
	requireClosed(t, happened)
	require.Equal(t, "9", requireReset(t, other))
	require.Empty(t, requireReset(t, client))
}

func TestCutAfterNothingCutsAtOnce(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	client, _ := pair(t, p, accepted)
	replaced := p.CutAfter(1)
	requireClosed(t, p.CutAfter(0))
	require.Empty(t, requireReset(t, client))

	client, server := pair(t, p, accepted)
	send(t, client, "xx")
	requireReads(t, server, "xx")
	select {
	case <-replaced:
		t.Fatal("an order that was replaced was carried out")
	default:
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	client, server := pair(t, p, accepted)
	ending, endingServer := pair(t, p, accepted)
	resetting, resettingServer := pair(t, p, accepted)

	p.Hold()
	p.Hold() // makes no difference
	send(t, client, "up")
	send(t, server, "down")
	require.NoError(t, ending.Close())
	require.NoError(t, resetting.SetLinger(0))
	require.NoError(t, resetting.Close())
	late := dial(t, p.Addr())
	send(t, late, "late")
	for _, conn := range []*net.TCPConn{client, server, endingServer, resettingServer, late} {
		requireSilent(t, conn)
	}
	require.Empty(t, accepted, "a new connection gets no further")
	require.Equal(t, 4, p.Conns(), "nothing was closed")

	p.Release()
	requireReads(t, server, "up")
	requireReads(t, client, "down")
	requireReads(t, next(t, accepted), "late")
	_, err := io.ReadAll(endingServer)
	require.NoError(t, err)
	require.Empty(t, requireReset(t, resettingServer))
	p.Release() // makes no difference
}

func TestHeldConnectionsCanBeCut(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	client, server := pair(t, p, accepted)
	p.Hold()
	late := dial(t, p.Addr())
	require.Eventually(t, func() bool { return p.Conns() == 2 }, patience, time.Millisecond)
	send(t, client, "held")
	p.Cut()
	for _, conn := range []net.Conn{client, server, late} {
		require.Empty(t, requireReset(t, conn))
	}
	p.Release()
	pair(t, p, accepted)
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	client, server := pair(t, p, accepted)

	p.Refuse(true)
	require.Empty(t, requireReset(t, client))
	require.Empty(t, requireReset(t, server))
	for range 3 {
		requireRefused(t, p)
	}
	require.Empty(t, accepted)
	require.Zero(t, p.Conns())

	p.Refuse(false)
	client, server = pair(t, p, accepted)
	send(t, client, "x")
	requireReads(t, server, "x")
}

// TestCutsUnderLoad breaks busy connections in every way at once. What arrives must be a prefix of what was
// sent, and goleak sees whether anything stays behind.
func TestCutsUnderLoad(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	stream := strings.Repeat("0123456789", 200_000)
	for round := range 10 {
		clients, servers := make([]*net.TCPConn, 4), make([]*net.TCPConn, 4)
		for i := range clients {
			clients[i], servers[i] = pair(t, p, accepted)
		}
		var busy sync.WaitGroup
		for i := range clients {
			busy.Go(func() { _, _ = io.WriteString(clients[i], stream) })
			busy.Go(func() {
				got, err := io.ReadAll(servers[i])
				if err == nil || !strings.HasPrefix(stream, string(got)) {
					t.Errorf("%d bytes and %v, and not the beginning of what was sent", len(got), err)
				}
			})
		}
		happened := p.CutAfter(int64(1 + round*100_000))
		p.Hold()
		p.Release()
		requireClosed(t, happened)
		busy.Wait()
		p.Cut()
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	addr, accepted := newTarget(t)
	p := newProxy(t, addr)
	client, server := pair(t, p, accepted)
	p.Hold()
	send(t, client, "held for ever")
	require.NoError(t, p.Close())
	require.Empty(t, requireReset(t, client))
	require.Empty(t, requireReset(t, server))
	_, err := net.Dial("tcp", p.Addr())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, p.Close())
}
