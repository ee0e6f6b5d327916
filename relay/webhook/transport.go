package webhook

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	dialTimeout       = 10 * time.Second
	handshakeTimeout  = 10 * time.Second
	keepAlivePeriod   = 30 * time.Second
	idleTimeout       = 90 * time.Second
	maxIdle           = 2048
	maxHeaderBytes    = 64 << 10 // of one answer, 1xx responses before it included
	writeBufferBytes  = 8 << 10  // an ordinary request leaves in one write
	sessionCacheHosts = 512
)

// newTransport builds the connection pool. There is no proxy, so that the address that was configured is
// the address that is dialled; no decompression, so that 50 KB cannot become 50 MB; and only HTTP/1.1, whose
// dead connections are noticed by the first request that meets them.
func newTransport(maxIdlePerHost int) *http.Transport {
	d := &dialer{
		tcp: net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlivePeriod},
		tls: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(sessionCacheHosts),
		},
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		TLSClientConfig:        d.tls,
		Protocols:              protocols,
		ForceAttemptHTTP2:      false,
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		WriteBufferSize:        writeBufferBytes,
	}
}

// dialer opens connections and marks each error with the step that failed, so that an attempt can be
// classified by type: net/http gives dial and handshake errors back bare.
type dialer struct {
	tcp net.Dialer
	tls *tls.Config
}

// dialError is a connection that could not be opened.
type dialError struct{ err error }

func (e *dialError) Error() string { return "connect: " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// handshakeError is a connection over which TLS could not be agreed.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d.tcp.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &dialError{err}
	}
	return conn, nil
}

func (d *dialer) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		_ = conn.Close()
		return nil, &dialError{err}
	}
	config := d.tls.Clone()
	config.ServerName = host
	secure := tls.Client(conn, config)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &handshakeError{err}
	}
	return secure, nil
}

// newClient wraps the transport in the retrying client, which is told to carry exactly one attempt and to
// hand back what happened as it happened.
func newClient(t *http.Transport) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport:     &onlyRoundTrip{t},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Logger:       nil,
		RetryMax:     0,
		CheckRetry:   func(context.Context, *http.Response, error) (bool, error) { return false, nil },
		Backoff:      retryablehttp.DefaultBackoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
}

// locationKey is where onlyRoundTrip puts a Location. No server can send a header of that name.
const locationKey = ":location"

// onlyRoundTrip hides everything of the transport but RoundTrip, and redirects from the client above it.
//
// go-retryablehttp calls CloseIdleConnections after every failed request. Were the transport to show that
// method, one dead receiver would cost every other one its kept-alive connections.
//
// http.Client parses the Location of a redirect before it asks CheckRedirect, and turns a malformed one
// into an error that loses the status. Without a Location it gives the response back as it is.
type onlyRoundTrip struct{ transport *http.Transport }

// RoundTrip implements http.RoundTripper.
func (o *onlyRoundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.transport.RoundTrip(r)
	if err == nil && resp.StatusCode >= 300 && resp.StatusCode <= 399 {
		if location, ok := resp.Header["Location"]; ok {
			delete(resp.Header, "Location")
			resp.Header[locationKey] = location
		}
	}
	return resp, err
}
