// Package webhook makes one HTTP attempt: it builds the request that a delivery becomes, signs it, sends
// it and says what came of it. It decides nothing about what follows; retries, schedules and dead letters
// belong to whoever calls it.
//
// # How often a request is sent
//
// One call of Send makes the receiver see a request at most once. Layers below could break that, and
// each is held:
//
//   - go-retryablehttp is configured never to retry.
//   - net/http's Transport sends a request again by itself, on a connection that was kept alive and turns
//     out to be closed. For a POST it does so in one case only: not a byte of the request was written
//     (shouldRetryRequest and nothingWrittenError in transport.go). Once a byte went out it gives the
//     error back, unless the request carries an Idempotency-Key or X-Idempotency-Key header, which makes
//     it count as replayable; such headers are therefore refused.
//   - In HTTP/2 the transport sends a request again that the receiver says it has not processed (GOAWAY,
//     REFUSED_STREAM), and one that was reset with PROTOCOL_ERROR, of which nobody says so. The first is done
//     here, once, and the second never (onlyRoundTrip).
//   - Redirects are not followed, so nothing is sent to a second address either.
//
// One gap is closed here. When the server closes an idle connection at the very moment at which the
// transport takes it from its pool, the transport gives the error back although nothing was written. Send
// then tries once more, provided that the transport never read a byte of the body, so that no receiver can
// have had the request.
package webhook

import (
	"net"
	"net/http"
	"net/url"
	"sync"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
)

// Options configures a Sender. The zero value of every field means its default.
type Options struct {
	UserAgent      string        // sent as User-Agent; default "walhook"
	Origin         string        // who sends, for receivers that are asked for permission: a DNS name; default "walhook"
	MaxResponse    int           // bytes of a response body that an Outcome keeps; default 10240
	MaxIdlePerHost int           // connections kept alive to one host; default 256
	Policy         Policy        // where requests may go; default to public addresses, over https
	Proxy          *url.URL      // http, https or socks5; default none. Of Policy only AllowHTTP counts then: the proxy dials
	Resolver       *net.Resolver // of receivers' names; default the system's
	Tracer         trace.Tracer  // gets a span for each attempt; default none, at no cost
	Log            zerolog.Logger
}

// The defaults of Options.
const (
	defaultUserAgent      = "walhook"
	defaultOrigin         = "walhook"
	defaultMaxResponse    = 10 << 10
	defaultMaxIdlePerHost = 256
)

// withDefaults fills in what the caller left out.
func (o Options) withDefaults() Options {
	if o.UserAgent == "" {
		o.UserAgent = defaultUserAgent
	}
	if o.Origin == "" {
		o.Origin = defaultOrigin
	}
	if o.MaxResponse <= 0 {
		o.MaxResponse = defaultMaxResponse
	}
	if o.MaxIdlePerHost <= 0 {
		o.MaxIdlePerHost = defaultMaxIdlePerHost
	}
	return o
}

// Sender makes attempts. It is safe for any number of goroutines and holds no goroutine of its own beside
// those of its idle connections.
type Sender struct {
	maxResponse int
	log         zerolog.Logger
	tracer      trace.Tracer // nil: no spans

	transport *http.Transport
	client    *retryablehttp.Client
	endpoints *endpoints

	// Header values that are the same for every request; net/http only reads them.
	userAgent []string
	origin    []string

	responses sync.Pool // *[]byte of maxResponse bytes
}

// New makes a Sender. Close releases its connections.
func New(o Options) *Sender {
	o = o.withDefaults()
	spoken := &protocols{of: make(map[string]string)}
	transport := newTransport(&o, spoken)
	s := &Sender{
		maxResponse: o.MaxResponse,
		tracer:      o.Tracer,
		log:         o.Log.With().Str("component", "webhook").Logger(),
		transport:   transport,
		client:      newClient(&onlyRoundTrip{transport, spoken, o.Proxy != nil, o.Policy.AllowHTTP}),
		endpoints:   newEndpoints(maxEndpoints),
		userAgent:   []string{headerText(o.UserAgent)},
		origin:      []string{headerText(o.Origin)},
	}
	s.responses.New = func() any { b := make([]byte, s.maxResponse); return &b }
	return s
}

// Close closes idle connections. Attempts under way end by themselves; one made after Close opens new
// connections.
func (s *Sender) Close() { s.transport.CloseIdleConnections() }
