package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

const (
	dialTimeout       = 10 * time.Second
	handshakeTimeout  = 10 * time.Second
	keepAlivePeriod   = 30 * time.Second
	sessionCacheHosts = 512
)

// The protocols that are offered over TLS (ALPN, RFC 7301), the preferred first.
var (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
)

// dialer opens connections where the policy allows it, and marks each error with the step that failed, so that
// an attempt can be classified by type: net/http gives dial and handshake errors back bare.
type dialer struct {
	plain, secure net.Dialer // for http and https: each address is judged before it is dialled
	tls           *tls.Config
	offered       []string // protocols, over TLS
	spoken        *protocols
}

// newDialer makes the dialer of requests that go to receivers, or of those that go to a proxy: there the policy
// is silent, since the proxy alone sees where they go on to, and only HTTP/1.1 is spoken.
func newDialer(o *Options, config *tls.Config, spoken *protocols) *dialer {
	d := &dialer{tls: config, spoken: spoken}
	base := net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlivePeriod, Resolver: o.Resolver}
	d.plain, d.secure = base, base
	if o.Proxy != nil {
		d.offered = []string{protocolHTTP1}
		return d
	}
	d.offered = []string{protocolHTTP2, protocolHTTP1}
	d.plain.ControlContext = guard(&o.Policy, "http")
	d.secure.ControlContext = guard(&o.Policy, "https")
	return d
}

// guard judges addresses at the last moment: the socket is made, and connect follows.
func guard(p *Policy, scheme string) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &RefusedError{Reason: "the address is refused: it cannot be read"}
		}
		return p.Check(scheme, to)
	}
}

// dialError is a connection that could not be opened.
type dialError struct{ err error }

func (e *dialError) Error() string { return "connect: " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// handshakeError is a connection over which TLS could not be agreed.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// proxyError is a proxy that did not connect to the receiver, or could not be reached itself.
type proxyError struct{ err error }

func (e *proxyError) Error() string { return "proxy: " + e.err.Error() }
func (e *proxyError) Unwrap() error { return e.err }

// dial is what net/http calls for http, and for a proxy that is spoken to without TLS.
func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return open(ctx, &d.plain, network, addr)
}

func open(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &dialError{err}
	}
	return conn, nil
}

// dialTLS is what net/http calls for https. It returns a *tls.Conn, from which net/http reads whether HTTP/2
// was agreed.
func (d *dialer) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := open(ctx, &d.secure, network, addr)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		_ = conn.Close()
		return nil, &dialError{err}
	}
	config := d.tls.Clone()
	config.ServerName, config.NextProtos = host, d.offered
	secure := tls.Client(conn, config)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &handshakeError{err}
	}
	d.spoken.note(addr, secure.ConnectionState().NegotiatedProtocol)
	return secure, nil
}

// proxyAnswered turns a proxy's refusal into an error with a type.
func proxyAnswered(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return &dialError{&proxyError{errors.New("it answers " + statusText(resp.StatusCode))}}
	}
	return nil
}

// behindProxy gives errors of requests through a proxy the types that direct ones have: there net/http makes the
// TLS connections itself, and reports what went wrong with the proxy as an operation of its own.
func behindProxy(err error) error {
	var op *net.OpError
	var dial *dialError
	var timeout net.Error // of the handshake: net/http knows no other here
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &op) && (op.Op == "proxyconnect" || op.Op == "socks connect"):
		return &dialError{&proxyError{op.Err}}
	case errors.As(err, &dial):
		return err
	case errors.As(err, &timeout) && timeout.Timeout(), errors.As(err, &alert), errors.As(err, &record), errors.As(err, &certificate):
		return &handshakeError{err}
	}
	return err
}
