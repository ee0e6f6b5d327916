package webhook

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

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
)

// maxTraceHeader bounds a traceparent or tracestate, in bytes. W3C Trace Context asks for 512 to be passed
// on; the bound keeps a producer's mistake from making receivers refuse the request for its size.
const maxTraceHeader = 4 << 10

// reserved headers are set by the relay, belong to the connection, or would change how often net/http sends
// the request. Names beginning with x-webhook-, webhook- or proxy- are reserved as well.
var reserved = map[string]bool{
	"Connection": true, "Content-Encoding": true, "Content-Length": true, "Content-Type": true,
	"Expect": true, "Host": true, "Idempotency-Key": true, "Keep-Alive": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "User-Agent": true, "X-Idempotency-Key": true,
}

func isReserved(name string) bool {
	return reserved[name] || strings.HasPrefix(name, "X-Webhook-") ||
		strings.HasPrefix(name, "Webhook-") || strings.HasPrefix(name, "Proxy-")
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
func (s *Sender) header(e *endpoint, d *delivery.Delivery, attempt int, body []byte, now time.Time) http.Header {
	h := make(http.Header, 8+len(e.headers))
	for name, values := range e.headers {
		h[name] = values
	}
	h["Content-Type"] = s.contentType
	h["User-Agent"] = s.userAgent
	values := [...]string{headerText(d.Event.Type), idText(d), strconv.Itoa(attempt), e.keys.sign(body, now)}
	h[headerEvent] = values[0:1:1]
	h[headerID] = values[1:2:2]
	h[headerAttempt] = values[2:3:3]
	if values[3] != "" {
		h[headerSignature] = values[3:4:4]
	}
	addTrace(h, d.Event.Headers)
	return h
}

func idText(d *delivery.Delivery) string {
	var room [36]byte
	return string(appendUUID(room[:0], d.ID))
}

// addTrace passes the event's trace context on (W3C Trace Context), where it can be a header's value.
func addTrace(h http.Header, eventHeaders []byte) {
	if len(eventHeaders) <= len("{}") {
		return
	}
	parent, ok := traceValue(eventHeaders, "traceparent")
	if !ok {
		return // a tracestate means nothing without it
	}
	h["Traceparent"] = []string{parent}
	delete(h, "Tracestate")
	if state, ok := traceValue(eventHeaders, "tracestate"); ok {
		h["Tracestate"] = []string{state}
	}
}

func traceValue(eventHeaders []byte, name string) (string, bool) {
	v := gjson.GetBytes(eventHeaders, name)
	ok := v.Type == gjson.String && v.Str != "" && len(v.Str) <= maxTraceHeader && validHeaderValue(v.Str)
	return v.Str, ok
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
		letterOrDigit := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
		if !letterOrDigit && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
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
