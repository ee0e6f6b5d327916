package webhook_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// The frames, flags and errors of RFC 9113 that the tests need (sections 6 and 7).
const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway byte = 0, 1, 3, 4, 6, 7

	flagEndStream, flagEndHeaders, flagAck byte = 1, 4, 1

	noError, protocolError, internalError, refusedStream uint32 = 0, 1, 2, 7
)

// frameServer speaks HTTP/2 in frames, so that it can do what well-behaved servers don't.
type frameServer struct {
	url                   string
	authorities           *x509.CertPool
	connections, requests atomic.Int32 // requests: those that came whole
}

// frameConn is one of its connections.
type frameConn struct {
	net.Conn
	server *frameServer
	number int // from 1
	pings  int // received so far
}

// newFrameServer starts a server that calls request for every request that has come whole, and ends the
// connection when it returns false. ping is called for every ping, which is answered when it returns true; nil
// answers all.
func newFrameServer(t *testing.T, ping func(c *frameConn) bool, request func(c *frameConn, stream uint32) bool) *frameServer {
	t.Helper()
	identity := httptest.NewUnstartedServer(nil)
	identity.StartTLS()
	certificate := identity.TLS.Certificates[0]
	s := &frameServer{authorities: x509.NewCertPool()}
	s.authorities.AddCert(identity.Certificate())
	identity.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
	require.NoError(t, err)
	s.url = "https://" + listener.Addr().String() + "/hook"
	var tasks sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	tasks.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			c := &frameConn{Conn: conn, server: s, number: int(s.connections.Add(1))}
			tasks.Go(func() {
				defer func() { _ = conn.Close() }()
				c.serve(ping, request)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		tasks.Wait()
	})
	return s
}

func (c *frameConn) serve(ping func(*frameConn) bool, request func(*frameConn, uint32) bool) {
	reader := bufio.NewReader(c)
	if _, err := io.CopyN(io.Discard, reader, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	c.frame(frameSettings, 0, 0, nil)
	for {
		var head [9]byte
		if _, err := io.ReadFull(reader, head[:]); err != nil {
			return
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(reader, payload); err != nil {
			return
		}
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		switch {
		case kind == frameSettings && flags&flagAck == 0:
			c.frame(frameSettings, flagAck, 0, nil)
		case kind == framePing && flags&flagAck == 0:
			if c.pings++; ping == nil || ping(c) {
				c.frame(framePing, flagAck, 0, payload)
			}
		case (kind == frameData || kind == frameHeaders) && flags&flagEndStream != 0:
			c.server.requests.Add(1)
			if !request(c, stream) {
				return
			}
		}
	}
}

func (c *frameConn) frame(kind, flags byte, stream uint32, payload []byte) {
	head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	_, _ = c.Write(append(binary.BigEndian.AppendUint32(head, stream), payload...))
}

// ok answers 200: entry 8 of HPACK's static table (RFC 7541, appendix A).
func (c *frameConn) ok(stream uint32) bool {
	c.frame(frameHeaders, flagEndHeaders|flagEndStream, stream, []byte{0x88})
	return true
}

func (c *frameConn) reset(stream, code uint32) bool {
	c.frame(frameReset, 0, stream, binary.BigEndian.AppendUint32(nil, code))
	return true
}

func (c *frameConn) goAway(last, code uint32) {
	c.frame(frameGoAway, 0, 0, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, last), code))
}

// sender makes a Sender that trusts the server's authority.
func (s *frameServer) sender(t *testing.T) *webhook.Sender {
	t.Helper()
	sender := newSender(t)
	sender.TrustForTest(s.authorities)
	return sender
}

// TestHTTP2IsNotRepeated: the receiver had all of the request, and nobody says that it did nothing with it.
// net/http would send it again after PROTOCOL_ERROR. The second request finds the host known.
func TestHTTP2IsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end  func(c *frameConn, stream uint32) bool
		text string
	}{
		"protocol error":   {func(c *frameConn, stream uint32) bool { return c.reset(stream, protocolError) }, ""},
		"internal error":   {func(c *frameConn, stream uint32) bool { return c.reset(stream, internalError) }, "the receiver reset the HTTP/2 stream: INTERNAL_ERROR"},
		"no error":         {func(c *frameConn, stream uint32) bool { return c.reset(stream, noError) }, "the receiver reset the HTTP/2 stream: NO_ERROR"},
		"closed":           {func(*frameConn, uint32) bool { return false }, "the connection broke before an answer"},
		"shutdown, closed": {func(c *frameConn, stream uint32) bool { c.goAway(stream, noError); return false }, "the receiver closed the HTTP/2 connection"},
		"error, closed":    {func(c *frameConn, stream uint32) bool { c.goAway(stream, internalError); return false }, "the receiver closed the HTTP/2 connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newFrameServer(t, nil, test.end)
			s := server.sender(t)
			for n := range 3 {
				out := send(t, s, settings(server.url))
				require.Equal(t, delivery.ReasonReset, out.Reason, out.Error)
				require.Contains(t, out.Error, test.text)
				require.EqualValues(t, n+1, server.requests.Load(), "one request an attempt")
			}
		})
	}
	server := newFrameServer(t, nil, func(c *frameConn, stream uint32) bool { return c.reset(stream, protocolError) })
	s := server.sender(t)
	send(t, s, settings(server.url))
	require.Equal(t, "the receiver reset the HTTP/2 stream: PROTOCOL_ERROR", send(t, s, settings(server.url)).Error)
}

// TestHTTP2Unprocessed: the receiver says that it did nothing with the request, which makes sending it again
// safe. It is done once.
func TestHTTP2Unprocessed(t *testing.T) {
	t.Parallel()
	for name, turnAway := range map[string]func(c *frameConn, stream uint32) bool{
		"refused":   func(c *frameConn, stream uint32) bool { return c.reset(stream, refusedStream) },
		"shut down": func(c *frameConn, stream uint32) bool { c.goAway(stream-2, noError); return true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			server := newFrameServer(t, nil, func(c *frameConn, stream uint32) bool {
				if requests.Add(1) == 2 {
					return turnAway(c, stream)
				}
				return c.ok(stream)
			})
			s := server.sender(t)
			for range 2 {
				out := send(t, s, settings(server.url))
				require.True(t, out.Succeeded(), out.Error)
			}
			require.EqualValues(t, 3, server.requests.Load())
		})
	}
	server := newFrameServer(t, nil, func(c *frameConn, stream uint32) bool {
		if stream == 1 {
			return c.ok(stream)
		}
		return c.reset(stream, refusedStream)
	})
	s := server.sender(t)
	out := send(t, s, settings(server.url))
	require.True(t, out.Succeeded(), out.Error)
	out = send(t, s, settings(server.url))
	require.Equal(t, delivery.ReasonReset, out.Reason)
	require.Equal(t, "the receiver reset the HTTP/2 stream: REFUSED_STREAM", out.Error)
	require.EqualValues(t, 3, server.requests.Load())
}

// TestHTTP2StalledConnection: the receiver's host is gone without a word, as far as anybody can tell. The
// attempt fails long before its time is up, and the next one gets a connection of its own.
func TestHTTP2StalledConnection(t *testing.T) {
	t.Parallel()
	deaf := func(*frameConn) bool { return false }
	server := newFrameServer(t, deaf, func(c *frameConn, stream uint32) bool { return c.number == 1 || c.ok(stream) })
	s := server.sender(t)
	s.PingForTest(50 * time.Millisecond)
	set := settings(server.url)
	set.Timeout = time.Minute
	out := send(t, s, set)
	require.Equal(t, delivery.ReasonReset, out.Reason, out.Error)
	require.Equal(t, "the connection broke before an answer: it stopped answering HTTP/2 pings", out.Error)
	out = send(t, s, set)
	require.True(t, out.Succeeded(), out.Error)
	require.EqualValues(t, 2, server.connections.Load())
}

// TestHTTP2SlowReceiver answers pings meanwhile, and is waited for.
func TestHTTP2SlowReceiver(t *testing.T) {
	t.Parallel()
	var asked atomic.Uint32 // the stream
	server := newFrameServer(t, func(c *frameConn) bool {
		if c.pings == 3 {
			c.ok(asked.Load())
		}
		return true
	}, func(_ *frameConn, stream uint32) bool { asked.Store(stream); return true })
	s := server.sender(t)
	s.PingForTest(200 * time.Millisecond)
	out := send(t, s, settings(server.url))
	require.True(t, out.Succeeded(), out.Error)
}

func TestHTTP2WatchesItsConnections(t *testing.T) {
	t.Parallel()
	c := newSender(t).HTTP2ForTest()
	require.Positive(t, c.SendPingTimeout)
	require.Positive(t, c.PingTimeout)
	require.Positive(t, c.WriteByteTimeout, "pings don't help while writes block (https://go.dev/issue/48810)")
	require.LessOrEqual(t, c.MaxReceiveBufferPerStream, 64<<10)
}

func TestHTTP2MalformedAnswer(t *testing.T) {
	t.Parallel()
	server := newFrameServer(t, nil, func(c *frameConn, stream uint32) bool {
		c.frame(frameHeaders, flagEndHeaders|flagEndStream, stream, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		return true
	})
	out := send(t, server.sender(t), settings(server.url))
	require.Equal(t, delivery.ReasonProtocol, out.Reason, out.Error)
	require.True(t, strings.HasPrefix(out.Error, "the answer is not valid HTTP: "), out.Error)
	require.EqualValues(t, 1, server.requests.Load())
}

// TestHTTP2Concurrency: many requests share a connection.
func TestHTTP2Concurrency(t *testing.T) {
	t.Parallel()
	server := newFrameServer(t, nil, func(c *frameConn, stream uint32) bool { return c.ok(stream) })
	s := server.sender(t)
	require.True(t, func() bool { out := send(t, s, settings(server.url)); return out.Succeeded() }())
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			out := s.Send(t.Context(), []*delivery.Delivery{newDelivery(`{}`)}, settings(server.url))
			if !out.Succeeded() {
				t.Error(out.Error)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 33, server.requests.Load())
	require.EqualValues(t, 1, server.connections.Load())
}

// TestHTTP1OverTLS: HTTP/1.1 stays the choice where the receiver offers nothing else, and there too a request is
// sent once.
func TestHTTP1OverTLS(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if requests.Add(1) == 1 {
			_, _ = io.WriteString(w, r.Proto)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}))
	server.StartTLS()
	t.Cleanup(server.Close)
	authorities := x509.NewCertPool()
	authorities.AddCert(server.Certificate())
	s := newSender(t)
	s.TrustForTest(authorities)
	out := send(t, s, settings(server.URL))
	require.Equal(t, "HTTP/1.1", out.Body, out.Error)
	out = send(t, s, settings(server.URL))
	require.Equal(t, delivery.ReasonReset, out.Reason, out.Error)
	require.EqualValues(t, 2, requests.Load())
}
