package webhook

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"github.com/walhook/walhook/relay/delivery"
)

// The headers of every request, in the canonical form under which net/http keeps them. Names of headers are
// case-insensitive (RFC 9110, section 5.1): X-Webhook-Id is the contract's X-Webhook-ID.
const (
	headerEvent     = "X-Webhook-Event"
	headerID        = "X-Webhook-Id"
	headerAttempt   = "X-Webhook-Attempt"
	headerSignature = "X-Webhook-Signature"
	headerBatch     = "X-Webhook-Batch"
)

// headerOrigin tells a receiver that was asked for its permission who sends (CloudEvents HTTP 1.1 Web Hooks
// 1.0.2, sections 2.1 and 4.1.2).
const headerOrigin = "Webhook-Request-Origin"

// maxTraceHeader bounds a traceparent or tracestate, in bytes. W3C Trace Context asks for 512 to be passed
// on; the bound keeps a producer's mistake from making receivers refuse the request for its size.
const maxTraceHeader = 4 << 10

// reserved headers are set by the relay, belong to the connection, or would change how often net/http sends
// the request. outbox.valid_headers in SQL refuses the same.
var reserved = map[string]bool{
	"Accept-Encoding": true, "Connection": true, "Content-Encoding": true, "Content-Length": true, "Content-Type": true,
	"Expect": true, "Host": true, "Idempotency-Key": true, "Keep-Alive": true, "Stripe-Signature": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "User-Agent": true, "X-Idempotency-Key": true,
}

// reservedPrefixes are the beginnings of those that signatures and formats use. They are reserved whatever the
// subscription's own are, so that a receiver can rely on what such a header says.
var reservedPrefixes = []string{
	"Ce-", "Proxy-", "Webhook-", "X-Github-", "X-Hub-Signature", "X-Shopify-", "X-Slack-", "X-Webhook-",
}

func isReserved(name string) bool {
	return reserved[name] ||
		slices.ContainsFunc(reservedPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// buildHeaders checks a subscription's headers and puts them in the form that net/http sends. Errors name the
// header, never its value.
func buildHeaders(list []delivery.Header) (http.Header, error) {
	out := make(http.Header, len(list))
	var errs []error
	for _, h := range list {
		name := http.CanonicalHeaderKey(h.Name)
		switch {
		case !validHeaderName(h.Name):
			errs = append(errs, errors.New("header "+strconv.Quote(h.Name)+" is not a valid name: use letters, digits and hyphens"))
		case isReserved(name):
			errs = append(errs, errors.New("header "+strconv.Quote(h.Name)+" is set by the relay or the connection: remove it"))
		case !validHeaderValue(h.Value):
			errs = append(errs, errors.New("header "+strconv.Quote(h.Name)+" has a control character in its value: remove it"))
		default:
			out[name] = append(out[name], h.Value)
		}
	}
	return out, errors.Join(errs...)
}

// header makes the header of one request. Values are slices of one array, and those that never change are
// shared, so that an ordinary request costs the map, the array and the strings that are its own.
func (s *Sender) header(e *endpoint, m *message) http.Header {
	h := make(http.Header, 8+len(e.scheme.extra)+len(e.headers))
	for name, values := range e.headers {
		h[name] = values
	}
	h["Content-Type"] = m.contentType
	h["User-Agent"] = s.userAgent
	value, along := e.scheme.sign(m, &e.keys)
	values := [...]string{m.event, m.id, strconv.Itoa(m.attempt), value}
	h[headerEvent] = values[0:1:1]
	h[headerID] = values[1:2:2]
	h[headerAttempt] = values[2:3:3]
	if value != "" {
		h[e.scheme.header] = values[3:4:4]
	}
	if along != "" {
		h[headerSignature] = []string{along}
	}
	e.scheme.addExtra(h, m)
	if e.from.Verification == delivery.VerifyCloudEvents {
		h[headerOrigin] = s.origin
	}
	e.addContent(h, m)
	return h
}

// addContent adds what follows from the deliveries in the request.
func (e *endpoint) addContent(h http.Header, m *message) {
	if m.elements > 0 {
		h[headerBatch] = []string{strconv.Itoa(m.elements)}
	} else if m.only != nil && e.format.header != nil {
		e.format.header(h, m.only)
	}
	if m.only != nil {
		addTrace(h, m.only.Event.Headers)
	}
}

func idText(id uuid.UUID) string {
	var room [36]byte
	return string(appendUUID(room[:0], id))
}

// addTrace passes the event's trace context on. A tracestate of the subscription's own would belong to
// another trace.
func addTrace(h http.Header, eventHeaders []byte) {
	parent, state := traceContext(eventHeaders)
	if parent == "" {
		return
	}
	h["Traceparent"] = []string{parent}
	delete(h, "Tracestate")
	if state != "" {
		h["Tracestate"] = []string{state}
	}
}

// traceContext returns the event's trace context (W3C Trace Context) where it can be a header's value; parts
// that are missing are empty. A tracestate means nothing without a traceparent.
func traceContext(eventHeaders []byte) (parent, state string) {
	if len(eventHeaders) <= len("{}") {
		return "", ""
	}
	if parent = traceValue(eventHeaders, "traceparent"); parent == "" {
		return "", ""
	}
	return parent, traceValue(eventHeaders, "tracestate")
}

func traceValue(eventHeaders []byte, name string) string {
	v := gjson.GetBytes(eventHeaders, name)
	if v.Type != gjson.String || len(v.Str) > maxTraceHeader || !validHeaderValue(v.Str) {
		return ""
	}
	return v.Str
}

// headerText makes a header's value of any text. What cannot stand in one is percent-encoded as a whole; an
// event's type is in the body unchanged.
func headerText(text string) string {
	if validHeaderValue(text) {
		return text
	}
	return url.PathEscape(text)
}

// validHeaderName reports whether name is a token (RFC 9110, section 5.6.2).
func validHeaderName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return name != ""
}

// validHeaderValue reports whether value has no control characters but tabs (RFC 9110, section 5.5).
func validHeaderValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
