package webhook

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// A connection on which nothing has come for pingAfter is asked for a sign of life; without one within
	// pingTimeout, or when nothing can be written for writeTimeout, it is given up together with its requests.
	// HTTP/1.1 needs no such thing: a dead connection there takes one request with it.
	pingAfter    = 15 * time.Second
	pingTimeout  = 15 * time.Second
	writeTimeout = 15 * time.Second

	// What a receiver may send ahead of being read, in bytes: all of it is kept in memory. A stream's share is
	// what is read of an answer at most.
	streamBuffer     = maxRead
	connectionBuffer = 1 << 20

	// maxSpoken bounds what is remembered of hosts' protocols.
	maxSpoken = 16384
)

func http2Config() *http.HTTP2Config {
	return &http.HTTP2Config{
		SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: writeTimeout,
		MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: connectionBuffer,
	}
}

// protocols remembers which hosts have ever agreed to HTTP/2, by the host:port that was dialled.
type protocols struct {
	mu sync.Mutex
	of map[string]string
}

// note keeps what was agreed; HTTP/2 once is HTTP/2 for good, since such a connection may still be in the pool.
func (p *protocols) note(addr, protocol string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[addr] != protocolHTTP2 && len(p.of) < maxSpoken {
		p.of[addr] = protocol
	}
}

// http2 reports whether a host may be spoken to in HTTP/2, and whether anything is known of it.
func (p *protocols) http2(r *http.Request) (is, known bool) {
	port := r.URL.Port()
	if port == "" {
		port = "443"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	protocol, known := p.of[net.JoinHostPort(r.URL.Hostname(), port)]
	return protocol == protocolHTTP2, known
}

// errUnsureAgain is why net/http gets no second body.
var errUnsureAgain = errors.New("the connection broke after the request was begun")

// once makes a request over TLS one that net/http does not send again by itself in HTTP/2. There it would
// after RST_STREAM with PROTOCOL_ERROR (canRetryError in h2_bundle.go), which a receiver may send when it has
// done everything that was asked.
//
// net/http asks GetBody for a second body, and without a GetBody it gives the error back, in HTTP/2 with the
// cause in its text. In HTTP/1.1 GetBody is needed when a kept-alive connection turns out to be closed before
// a byte was written, so it is left to hosts that speak nothing else. Where nothing is known beforehand, it
// fails as soon as the body was begun and the connection may have been HTTP/2.
func (o *onlyRoundTrip) once(r *http.Request) *http.Request {
	single := *r
	if is, _ := o.spoken.http2(r); is {
		single.GetBody = nil
		return &single
	}
	body := &begunBody{ReadCloser: r.Body}
	single.Body = body
	single.GetBody = func() (io.ReadCloser, error) {
		if is, known := o.spoken.http2(r); body.begun && (is || !known) {
			return nil, errUnsureAgain
		}
		return r.GetBody()
	}
	return &single
}

// begunBody notes that it was read. net/http asks for another body only when it has stopped reading this one.
type begunBody struct {
	io.ReadCloser
	begun bool
}

func (b *begunBody) Read(p []byte) (int, error) {
	b.begun = true
	return b.ReadCloser.Read(p)
}

// streamError is a request in HTTP/2 that ended without an answer.
type streamError struct {
	text        string
	unprocessed bool // the receiver vouches for it: sending again is safe
}

func (e *streamError) Error() string { return e.text }

// http2Error gives what HTTP/2 reports a type. net/http has none for it, so this goes by texts, which the tests
// provoke; one that has become unknown counts as a malformed answer and is not sent again.
//
// Unprocessed are a stream above the last one that GOAWAY names and one that was refused (RFC 9113, sections 6.8
// and 8.7).
func http2Error(err error) error {
	text := err.Error()
	if _, cause, found := strings.Cut(text, "cannot retry err ["); found {
		text, _, _ = strings.Cut(cause, "] after Request.Body")
	}
	const lost = "the connection broke before an answer: "
	switch reset, byReceiver := strings.CutSuffix(text, "; received from peer"); {
	case byReceiver:
		code := reset[strings.LastIndexByte(reset, ' ')+1:]
		return &streamError{"the receiver reset the HTTP/2 stream: " + code, code == "REFUSED_STREAM"}
	case strings.HasSuffix(text, "graceful shutdown GOAWAY"):
		return &streamError{lost + "the receiver shuts the HTTP/2 connection down", true}
	case strings.HasPrefix(text, "http2: server sent GOAWAY"), strings.HasPrefix(text, "http2: Transport received GOAWAY"):
		return &streamError{lost + "the receiver closed the HTTP/2 connection", false}
	case strings.HasPrefix(text, "http2: client connection lost"):
		return &streamError{lost + "it stopped answering HTTP/2 pings", false}
	case errors.Is(err, errUnsureAgain):
		return &streamError{errUnsureAgain.Error(), false}
	}
	return err
}
