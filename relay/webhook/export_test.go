package webhook

import (
	"crypto/x509"
	"net/http"
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
