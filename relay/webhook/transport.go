package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	idleTimeout      = 90 * time.Second
	maxIdle          = 2048
	maxHeaderBytes   = 64 << 10 // of one answer, 1xx responses before it included
	writeBufferBytes = 8 << 10  // an ordinary request leaves in one write
)

// newTransport builds the connection pool. There is no proxy but the configured one, whatever the environment
// says, so that the address that was configured is the address that is dialled and judged; and no
// decompression, so that 50 KB cannot become 50 MB. HTTP/2 is spoken with receivers that offer it over TLS.
func newTransport(o *Options, spoken *protocols) *http.Transport {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionCacheHosts),
		NextProtos:         []string{protocolHTTP2, protocolHTTP1},
	}
	d := newDialer(o, config, spoken)
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	t := &http.Transport{
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    handshakeTimeout, // behind a proxy; dialTLS has its own
		Protocols:              both,
		HTTP2:                  http2Config(),
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    o.MaxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		WriteBufferSize:        writeBufferBytes,
	}
	if o.Proxy != nil {
		t.Proxy, t.OnProxyConnectResponse = http.ProxyURL(o.Proxy), proxyAnswered
	}
	return t
}

// newClient wraps the transport in the retrying client, which is told to carry exactly one attempt and to
// hand back what happened as it happened.
func newClient(carrier *onlyRoundTrip) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport:     carrier,
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
type onlyRoundTrip struct {
	transport *http.Transport
	spoken    *protocols
	proxied   bool
	allowHTTP bool // beyond loopback, where only a proxy knows what is beyond
}

// RoundTrip implements http.RoundTripper.
func (o *onlyRoundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.proxied && !o.allowHTTP && r.URL.Scheme != "https" {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, &dialError{&RefusedError{Reason: httpRefused}}
	}
	resp, err := o.carry(r)
	if err == nil && resp.StatusCode >= 300 && resp.StatusCode <= 399 {
		if location, ok := resp.Header["Location"]; ok {
			delete(resp.Header, "Location")
			resp.Header[locationKey] = location
		}
	}
	return resp, err
}

// carry sends a request, and sends it again, once, when the receiver itself says that it did nothing with it.
func (o *onlyRoundTrip) carry(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || r.GetBody == nil {
		return o.roundTrip(r)
	}
	resp, err := o.roundTrip(o.once(r))
	var stream *streamError
	if !errors.As(err, &stream) || !stream.unprocessed {
		return resp, err
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, stream
	}
	again := *r
	again.Body = body
	return o.roundTrip(o.once(&again))
}

// roundTrip gives errors their types.
func (o *onlyRoundTrip) roundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.transport.RoundTrip(r)
	if err != nil && o.proxied {
		err = behindProxy(err)
	}
	if err != nil && r.URL.Scheme == "https" {
		err = http2Error(err)
	}
	return resp, err
}
