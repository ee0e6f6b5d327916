package webhook_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// hold keeps a connection open without a word until the other side closes it.
func hold(c *rawConn) { _, _ = io.Copy(io.Discard, c) }

// TestBrokenAnswers has every way in which a receiver fails to answer, and what it is called.
func TestBrokenAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		handle func(*rawConn)
		want   delivery.Reason
		text   string
	}{
		"closed without reading":    {func(c *rawConn) {}, delivery.ReasonReset, "connection"},
		"closed after the request":  {func(c *rawConn) { c.read() }, delivery.ReasonReset, "closed"},
		"reset after processing":    {func(c *rawConn) { c.read(); c.reset() }, delivery.ReasonReset, "reset by peer"},
		"closed inside the status":  {answeringOnce("HTTP/1.1 2"), delivery.ReasonProtocol, "malformed HTTP"},
		"closed inside the headers": {answeringOnce("HTTP/1.1 200 OK\r\nA: b\r\n"), delivery.ReasonReset, "before an answer"},
		"garbage":                   {answeringOnce("\x16\x03\x00 " + secret + "\r\n\r\n"), delivery.ReasonProtocol, "not valid HTTP"},
		"another protocol":          {answeringOnce("SSH-2.0-OpenSSH_9.2\r\n"), delivery.ReasonProtocol, "not valid HTTP"},
		"status that is no number":  {answeringOnce("HTTP/1.1 abc\r\n\r\n"), delivery.ReasonProtocol, "status"},
		"malformed header":          {answeringOnce("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), delivery.ReasonProtocol, "header"},
		"two lengths":               {answeringOnce("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"), delivery.ReasonProtocol, "Content-Length"},
		"length that is no number":  {answeringOnce("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nx"), delivery.ReasonProtocol, "Content-Length"},
		"huge header":               {answeringOnce("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 80<<10) + "\r\n\r\n"), delivery.ReasonProtocol, "headers exceeded"},
		"many headers":              {answeringOnce("HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 20<<10) + "\r\n"), delivery.ReasonProtocol, "headers exceeded"},
		"flood of 1xx":              {answeringOnce(strings.Repeat("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n", 100_000)), delivery.ReasonProtocol, "headers exceeded"},
		"no byte ever":              {func(c *rawConn) { c.read(); hold(c) }, delivery.ReasonTimeout, "no answer within 300ms"},
		"never reads":               {func(c *rawConn) { hold(&rawConn{Conn: c.Conn}) }, delivery.ReasonTimeout, "no answer within"},
		"headers drop by drop":      {drip("HTTP/1.1 200 OK\r\nA: ", "a"), delivery.ReasonTimeout, "no answer within"},
		"1xx drop by drop":          {drip("", "HTTP/1.1 103 Early Hints\r\n\r\n"), delivery.ReasonTimeout, "no answer within"},
		"answer before the body":    {early("HTTP/1.1 500 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), delivery.ReasonStatus, "HTTP 500"},
	} {
		t.Run(name, func(t *testing.T) {
			set := settings(newRawServer(t, test.handle).url)
			set.Timeout = 300 * time.Millisecond
			started := time.Now()
			out := send(t, newSender(t), set)
			require.Equal(t, test.want, out.Reason, out.Error)
			require.Contains(t, out.Error, test.text)
			require.NotContains(t, out.Error, set.URL)
			require.Less(t, time.Since(started), 3*time.Second)
		})
	}
}

// early answers as soon as the first byte of a request is there, and reads no more of it.
func early(answer string) func(*rawConn) {
	return func(c *rawConn) {
		if _, err := c.reader.Peek(1); err == nil && c.write(answer) {
			hold(c)
		}
	}
}

// drip writes first and then the same piece over and over, slowly.
func drip(first, piece string) func(*rawConn) {
	return func(c *rawConn) {
		c.read()
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for open := c.write(first); open; open = c.write(piece) {
			<-pace.C
		}
	}
}

// TestSuccessDespiteTheBody has every way in which a response can go wrong after its headers.
func TestSuccessDespiteTheBody(t *testing.T) {
	endless := func(c *rawConn) {
		c.read()
		block := strings.Repeat("e", 4096)
		for open := c.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"); open; {
			open = c.write("1000\r\n" + block + "\r\n")
		}
	}
	for name, test := range map[string]struct {
		handle func(*rawConn)
		body   string
	}{
		"shorter than its length": {answeringOnce("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), "short"},
		"longer than its length":  {answeringOnce("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nokay"), "ok"},
		"broken chunk":            {answeringOnce("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n"), "ok"},
		"without a length":        {answeringOnce("HTTP/1.1 201 Created\r\n\r\nuntil the end"), "until the end"},
		"endless":                 {endless, strings.Repeat("e", 10240)},
		"drop by drop":            {drip("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", ""), ""},
		"echo of the secret":      {answeringOnce("HTTP/1.1 200 OK\r\n\r\nyou sent " + secret + "!"), "you sent [redacted]!"},
	} {
		t.Run(name, func(t *testing.T) {
			started := time.Now()
			out := send(t, newSender(t), settings(newRawServer(t, test.handle).url))
			require.Equal(t, delivery.ReasonNone, out.Reason, out.Error)
			require.Equal(t, test.body, out.Body)
			require.Less(t, time.Since(started), webhook.MaxReadTimeForTest+time.Second)
		})
	}
}

// TestLittleOfAnEndlessBodyIsRead: the connection is given up after 64 KB, however fast the rest would come.
func TestLittleOfAnEndlessBodyIsRead(t *testing.T) {
	sent := make(chan int, 1)
	server := newRawServer(t, func(c *rawConn) {
		c.read()
		c.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		total, block := 0, strings.Repeat("e", 64<<10)
		for c.write(block) {
			total += len(block)
		}
		sent <- total
	})
	out := send(t, newSender(t), settings(server.url))
	require.True(t, out.Succeeded())
	require.Less(t, <-sent, 32<<20, "no more than what the sockets between them buffer")
}

func TestSlowBodyDoesNotOutliveTheAttempt(t *testing.T) {
	set := settings(newRawServer(t, drip("HTTP/1.1 500 x\r\nContent-Length: 1000000\r\n\r\n", "d")).url)
	set.Timeout = 200 * time.Millisecond
	out := send(t, newSender(t), set)
	require.Equal(t, delivery.ReasonStatus, out.Reason, "the status was there in time")
	require.Contains(t, out.Body, "dd")
	require.Less(t, out.Duration, time.Second)
}

func TestGzipBombStaysPacked(t *testing.T) {
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	_, err := w.Write(make([]byte, 20<<20))
	require.NoError(t, err)
	require.NoError(t, w.Close())

	var accepted string
	url, _ := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		accepted = r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	})
	out := send(t, newSender(t), settings(url))
	require.True(t, out.Succeeded())
	require.Empty(t, accepted)
	require.True(t, strings.HasPrefix(out.Body, "\x1f"), "the packed bytes, as far as they are text")
	require.LessOrEqual(t, len(out.Body), 10240)
	require.NotContains(t, out.Body, "\x00")
}

func TestNoConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())

	s := newSender(t)
	out := send(t, s, settings("http://"+address+"/?token=hunter2"))
	require.Equal(t, delivery.ReasonConnect, out.Reason)
	require.Equal(t, "connect to "+address+": connection refused", out.Error)

	out = send(t, s, settings("http://no-such-host.invalid/"))
	require.Equal(t, delivery.ReasonConnect, out.Reason)
	require.Contains(t, out.Error, "connect to no-such-host.invalid: ")
}

func TestOneDeadReceiverCostsTheOthersNothing(t *testing.T) {
	alive := newRawServer(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	dead := newRawServer(t, func(*rawConn) {})
	s := newSender(t)
	for range 5 {
		require.True(t, func() bool { out := send(t, s, settings(alive.url)); return out.Succeeded() }())
		out := send(t, s, settings(dead.url))
		require.Equal(t, delivery.ReasonReset, out.Reason)
	}
	require.EqualValues(t, 1, alive.connections.Load(), "a failed attempt must not close other connections")
}

func TestSmallBodiesKeepTheConnection(t *testing.T) {
	body := strings.Repeat("k", webhook.MaxReadForTest-1)
	server := newRawServer(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 65535\r\n\r\n"+body))
	s := newSender(t)
	for range 3 {
		out := send(t, s, settings(server.url))
		require.Equal(t, body[:10240], out.Body)
	}
	require.EqualValues(t, 1, server.connections.Load())
}
