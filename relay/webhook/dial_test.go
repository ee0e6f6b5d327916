package webhook_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// sender makes a Sender with a policy of its own.
func sender(t *testing.T, o webhook.Options) *webhook.Sender {
	t.Helper()
	o.Log = zerolog.Nop()
	s := webhook.New(o)
	t.Cleanup(s.Close)
	return s
}

// nameServer answers every question for an IPv4 address with the next list of addresses, the last one for ever,
// and every other question with nothing.
func nameServer(t *testing.T, answers ...[]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var task sync.WaitGroup
	task.Go(func() {
		question := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(question)
			if err != nil {
				return
			}
			reply, asked := dnsReply(question[:n], answers[0])
			_, _ = conn.WriteTo(reply, from)
			if asked && len(answers) > 1 {
				answers = answers[1:]
			}
		}
	})
	t.Cleanup(func() { _ = conn.Close(); task.Wait() })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// dnsReply answers a question (RFC 1035, section 4) and reports whether it was one for an IPv4 address.
func dnsReply(question []byte, addrs []string) (reply []byte, ipv4 bool) {
	end := 12
	for question[end] != 0 {
		end += int(question[end]) + 1
	}
	end += 5 // the root's label, type and class
	ipv4 = binary.BigEndian.Uint16(question[end-4:]) == 1
	reply = append(reply, question[:end]...)
	binary.BigEndian.PutUint16(reply[2:], 0x8180) // an answer, without error
	binary.BigEndian.PutUint16(reply[6:], 0)
	binary.BigEndian.PutUint32(reply[8:], 0)
	if !ipv4 {
		return reply, false
	}
	binary.BigEndian.PutUint16(reply[6:], uint16(len(addrs)))
	for _, addr := range addrs {
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the name above, A, IN, no time to live
		reply = append(reply, netip.MustParseAddr(addr).AsSlice()...)
	}
	return reply, true
}

// twoHosts starts servers on the same port of 127.0.0.1 and 127.0.0.2 and returns the port and the number of
// connections that each has seen.
func twoHosts(t *testing.T) (port string, first, second *atomic.Int32) {
	t.Helper()
	server := newRawServer(t, answeringOnce(okAnswer))
	u, err := url.Parse(server.url)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.2:"+u.Port())
	if err != nil {
		t.Skip("this machine has no second loopback address: ", err)
	}
	second = new(atomic.Int32)
	var task sync.WaitGroup
	task.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			second.Add(1)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = listener.Close(); task.Wait() })
	return u.Port(), &server.connections, second
}

// onlyFirst allows 127.0.0.1 and no other address of this machine.
var onlyFirst = webhook.Policy{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}

func TestRebinding(t *testing.T) {
	t.Parallel()
	port, first, second := twoHosts(t)
	s := sender(t, webhook.Options{Policy: onlyFirst, Resolver: nameServer(t, []string{"127.0.0.1"}, []string{"127.0.0.2"})})
	out := send(t, s, settings("http://hook.test:"+port+"/"))
	require.True(t, out.Succeeded(), out.Error)
	out = send(t, s, settings("http://hook.test:"+port+"/"))
	require.Equal(t, delivery.ReasonAddress, out.Reason)
	require.Equal(t, "address 127.0.0.2 is refused (loopback, RFC 1122): set delivery.allow_loopback to always to allow it", out.Error)
	require.EqualValues(t, 1, first.Load())
	require.Zero(t, second.Load(), "a refused address gets no connection")
}

func TestEveryAddressIsJudged(t *testing.T) {
	t.Parallel()
	port, first, second := twoHosts(t)
	for _, addrs := range [][]string{{"127.0.0.2", "127.0.0.1"}, {"127.0.0.1", "127.0.0.2"}} {
		s := sender(t, webhook.Options{Policy: onlyFirst, Resolver: nameServer(t, addrs)})
		out := send(t, s, settings("http://hook.test:"+port+"/"))
		require.True(t, out.Succeeded(), out.Error)
	}
	s := sender(t, webhook.Options{Policy: onlyFirst, Resolver: nameServer(t, []string{"127.0.0.2", "10.0.0.1", "169.254.169.254"})})
	out := send(t, s, settings("https://hook.test:"+port+"/"))
	require.Equal(t, delivery.ReasonAddress, out.Reason)
	require.EqualValues(t, 2, first.Load())
	require.Zero(t, second.Load())
}

// TestRefusals: nobody is asked for anything, so that addresses of others can stand here.
func TestRefusals(t *testing.T) {
	t.Parallel()
	documentation := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for name, test := range map[string]struct {
		url    string
		policy webhook.Policy
		text   string
	}{
		"metadata":        {"http://169.254.169.254/latest/meta-data", webhook.Policy{AllowHTTP: true, AllowLoopback: true}, "(link-local, RFC 3927)"},
		"https as well":   {"https://10.0.0.1/", webhook.Policy{}, "(private, RFC 1918)"},
		"mapped":          {"http://[::ffff:169.254.169.254]/", webhook.Policy{}, "address 169.254.169.254 is refused"},
		"loopback":        {"http://127.0.0.1:9999/", webhook.Policy{AllowHTTP: true}, "set delivery.allow_loopback to always"},
		"plain http":      {"http://192.0.2.1/", webhook.Policy{AllowNetworks: documentation}, "http is refused: use https, or set delivery.allow_http"},
		"port":            {"https://192.0.2.1:5432/", webhook.Policy{AllowNetworks: documentation}, "port 5432 of 192.0.2.1 is refused"},
		"own":             {"http://127.0.0.1:8080/", webhook.Policy{AllowLoopback: true, Own: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080")}}, "the relay's own"},
		"the zero policy": {"https://[fd00:ec2::254]/", webhook.Policy{}, "(private, RFC 4193)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sender(t, webhook.Options{Policy: test.policy, Resolver: nameServer(t, []string{"127.0.0.1"})})
			out := send(t, s, settings(test.url))
			require.Equal(t, delivery.ReasonAddress, out.Reason, out.Error)
			require.Contains(t, out.Error, test.text)
			require.Zero(t, out.Status)
			require.Empty(t, out.Body)
		})
	}
}

// connector is a proxy that connects every CONNECT to the server at backend, and hands every other request to it.
func connector(t *testing.T, secure bool, backend string) (proxy *httptest.Server, asked chan *http.Request) {
	t.Helper()
	asked = make(chan *http.Request, 8)
	proxy = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		if r.Method != http.MethodConnect {
			return
		}
		if backend == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		to, err := net.Dial("tcp", backend)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		from, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			_ = to.Close()
			return
		}
		_, _ = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		join(from, to)
	}))
	proxy.EnableHTTP2 = true // which nobody is to ask a proxy for
	if secure {
		proxy.StartTLS()
	} else {
		proxy.Start()
	}
	t.Cleanup(proxy.Close)
	return proxy, asked
}

// join carries bytes both ways until one side ends.
func join(from, to net.Conn) {
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(to, from); _ = to.Close() })
	both.Go(func() { _, _ = io.Copy(from, to); _ = from.Close() })
	both.Wait()
}

func proxyURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	require.NoError(t, err)
	u.User = url.UserPassword("relay", "s3cret")
	return u
}

// TestProxyOwnsTheCheck: the name is not looked up here, and neither the proxy's address nor what is behind it is
// judged.
func TestProxyOwnsTheCheck(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		server, authorities := tlsReceiver(t, nil)
		proxy, asked := connector(t, secure, server.Listener.Addr().String())
		s := sender(t, webhook.Options{Proxy: proxyURL(t, proxy.URL)})
		s.TrustForTest(authorities) // httptest gives all servers the same certificate
		for range 2 {
			out := send(t, s, settings("https://example.com/hook"))
			require.True(t, out.Succeeded(), out.Error)
			require.Equal(t, "HTTP/2.0", out.Body)
		}
		r := <-asked
		require.Equal(t, http.MethodConnect, r.Method)
		require.Equal(t, "example.com:443", r.Host)
		require.Equal(t, "Basic cmVsYXk6czNjcmV0", r.Header.Get("Proxy-Authorization"))
		require.Empty(t, asked, "one connection for both")
	}
}

// socks is a SOCKS 5 proxy (RFC 1928, RFC 1929) that connects whatever is asked of it to backend, and tells for
// what host it was asked; without a backend it refuses.
func socks(t *testing.T, backend string) (proxy string, asked chan string) {
	t.Helper()
	asked = make(chan string, 8)
	server := newRawServer(t, func(c *rawConn) {
		next := func() []byte { // what follows behind its length
			n, _ := c.reader.ReadByte()
			b := make([]byte, n)
			_, _ = io.ReadFull(c.reader, b)
			return b
		}
		_, _ = c.reader.Discard(1)
		next() // methods
		c.write("\x05\x02")
		_, _ = c.reader.Discard(1)
		next() // user
		next() // password
		c.write("\x01\x00")
		_, _ = c.reader.Discard(4) // connect, to a name
		asked <- string(next())
		_, _ = c.reader.Discard(2) // port
		to, err := net.Dial("tcp", backend)
		if err != nil {
			c.write("\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00")
			return
		}
		c.write("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
		join(c, to)
	})
	return "socks5" + strings.TrimSuffix(strings.TrimPrefix(server.url, "http"), "/hook"), asked
}

func TestSOCKSProxy(t *testing.T) {
	t.Parallel()
	server, authorities := tlsReceiver(t, nil)
	proxy, asked := socks(t, server.Listener.Addr().String())
	s := sender(t, webhook.Options{Proxy: proxyURL(t, proxy)})
	s.TrustForTest(authorities)
	out := send(t, s, settings("https://example.com/hook"))
	require.True(t, out.Succeeded(), out.Error)
	require.Equal(t, "example.com", <-asked, "the name, not an address")

	proxy, _ = socks(t, "127.0.0.1:1")
	out = send(t, sender(t, webhook.Options{Proxy: proxyURL(t, proxy)}), settings("https://example.com/hook"))
	require.Equal(t, delivery.ReasonConnect, out.Reason, out.Error)
	require.Contains(t, out.Error, "connect to the proxy: ")
}

func TestProxyAndPlainHTTP(t *testing.T) {
	t.Parallel()
	proxy, asked := connector(t, false, "")
	s := sender(t, webhook.Options{Proxy: proxyURL(t, proxy.URL)})
	out := send(t, s, settings("http://example.com/hook"))
	require.Equal(t, delivery.ReasonAddress, out.Reason)
	require.Equal(t, "http is refused: use https, or set delivery.allow_http", out.Error)
	require.Empty(t, asked)

	s = sender(t, webhook.Options{Proxy: proxyURL(t, proxy.URL), Policy: webhook.Policy{AllowHTTP: true}})
	out = send(t, s, settings("http://example.com/hook"))
	require.True(t, out.Succeeded(), out.Error)
	require.Equal(t, "http://example.com/hook", (<-asked).URL.String())
}

func TestProxyFails(t *testing.T) {
	t.Parallel()
	refusing, _ := connector(t, false, "")
	gone := newRawServer(t, func(*rawConn) {})
	mute, _ := connector(t, false, strings.TrimSuffix(strings.TrimPrefix(gone.url, "http://"), "/hook"))
	stranger, _ := tlsReceiver(t, nil)
	unknown, _ := connector(t, false, stranger.Listener.Addr().String())
	for name, test := range map[string]struct {
		proxy  string
		reason delivery.Reason
		text   string
	}{
		"refuses":           {refusing.URL, delivery.ReasonConnect, "connect to the proxy: it answers HTTP 403 Forbidden"},
		"not there":         {"http://127.0.0.1:1", delivery.ReasonConnect, "connect to the proxy: connection refused"},
		"socks not there":   {"socks5://127.0.0.1:1", delivery.ReasonConnect, "connect to the proxy: connection refused"},
		"closes":            {strings.TrimSuffix(gone.url, "/hook"), delivery.ReasonReset, "the server closed the connection"},
		"receiver closes":   {mute.URL, delivery.ReasonReset, "the server closed the connection"},
		"unknown authority": {unknown.URL, delivery.ReasonTLS, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			out := send(t, sender(t, webhook.Options{Proxy: proxyURL(t, test.proxy)}), settings("https://example.com/hook"))
			require.Equal(t, test.reason, out.Reason, out.Error)
			require.Contains(t, out.Error, test.text)
			require.NotContains(t, out.Error, "s3cret")
		})
	}
}

// TestEnvironmentIsNoProxy must not run in parallel: it sets variables.
func TestEnvironmentIsNoProxy(t *testing.T) {
	proxy, asked := connector(t, false, "")
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	s := sender(t, webhook.Options{})
	require.Equal(t, delivery.ReasonAddress, send(t, s, settings("https://10.0.0.1/")).Reason)
	require.Empty(t, asked)
}
