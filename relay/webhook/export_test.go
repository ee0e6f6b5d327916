package webhook

import (
	"crypto/x509"
	"net/http"
	"time"

	"github.com/walhook/walhook/relay/delivery"
)

// TrustForTest makes the Sender accept certificates of these authorities.
func (s *Sender) TrustForTest(authorities *x509.CertPool) {
	s.transport.TLSClientConfig.RootCAs = authorities
}

// LimitEndpointsForTest bounds the cache of compiled settings to n.
func (s *Sender) LimitEndpointsForTest(n int) { s.endpoints.limit = n }

// EndpointsForTest returns how many compiled settings are cached.
func (s *Sender) EndpointsForTest() int {
	s.endpoints.mu.RLock()
	defer s.endpoints.mu.RUnlock()
	return len(s.endpoints.of)
}

// The bounds that tests measure against.
const (
	MaxReadForTest     = maxRead
	MaxReadTimeForTest = maxReadTime
)

// CarryForTest replaces the transport by carry.
func (s *Sender) CarryForTest(carry func(*http.Request) (*http.Response, error)) {
	s.client.HTTPClient.Transport = carrier(carry)
}

type carrier func(*http.Request) (*http.Response, error)

func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) { return c(r) }

// Sign returns the value of X-Webhook-Signature for one secret: "sha256=" and the lower-case hexadecimal
// HMAC-SHA256 (RFC 2104) of body, keyed with the secret's bytes as they are. GitHub signs in the same way,
// so its published vectors hold here.
func Sign(secret delivery.Secret, body []byte) string {
	return schemes[signatureSHA256].value(&message{body: body}, []*signer{newSigner([]byte(secret.Reveal()))})
}

// ValueForTest signs with one key in the named way, as a request with this id at this time does.
func ValueForTest(signature string, key []byte, id string, at time.Time, body string) string {
	m := message{id: id, at: at, body: []byte(body)}
	return schemes[signature].value(&m, []*signer{newSigner(key)})
}

// What parses foreign bytes, for fuzzing.
var (
	BuildHeadersForTest     = buildHeaders
	ParseURLForTest         = parseURL
	PermissionForTest       = permission
	AnswersChallengeForTest = answersChallenge
	URIReferenceForTest     = uriReference
)

// CloudEventForTest writes d in the JSON format.
func CloudEventForTest(d *delivery.Delivery) []byte { return appendCloudEvent(nil, d) }

// CloudEventHeadersForTest writes the attributes of d as headers.
func CloudEventHeadersForTest(d *delivery.Delivery) http.Header {
	h := http.Header{}
	addCloudEvent(h, d)
	return h
}
