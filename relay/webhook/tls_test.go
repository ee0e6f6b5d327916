package webhook_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
)

// tlsReceiver starts a server with a certificate for example.com and 127.0.0.1 and returns its authority.
func tlsReceiver(t *testing.T, config *tls.Config) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}))
	server.TLS = config
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	authorities := x509.NewCertPool()
	authorities.AddCert(server.Certificate())
	return server, authorities
}

func TestTLS(t *testing.T) {
	server, authorities := tlsReceiver(t, nil)
	s := newSender(t)
	s.TrustForTest(authorities)
	for range 2 {
		out := send(t, s, settings(server.URL))
		require.True(t, out.Succeeded(), out.Error)
		require.Equal(t, "HTTP/2.0", out.Body, "where the server offers it")
	}
}

func TestTLSFailures(t *testing.T) {
	plain := newRawServer(t, early("HTTP/1.0 400 Bad Request\r\n\r\nTLS spoken to a plain server\n"))
	silent := newRawServer(t, hold)
	closing := newRawServer(t, func(*rawConn) {})
	trusted, authorities := tlsReceiver(t, nil)
	old, oldAuthorities := tlsReceiver(t, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	for name, test := range map[string]struct {
		url         string
		authorities *x509.CertPool
		want        delivery.Reason
		text        string
	}{
		"unknown authority": {trusted.URL, x509.NewCertPool(), delivery.ReasonTLS, "unknown authority"},
		"wrong host":        {strings.Replace(trusted.URL, "127.0.0.1", "localhost", 1), authorities, delivery.ReasonTLS, "not localhost"},
		"TLS 1.1":           {old.URL, oldAuthorities, delivery.ReasonTLS, "protocol version"},
		"no TLS":            {"https" + strings.TrimPrefix(plain.url, "http"), nil, delivery.ReasonTLS, "does not speak TLS"},
		"closed":            {"https" + strings.TrimPrefix(closing.url, "http"), nil, delivery.ReasonTLS, "TLS handshake with 127.0.0.1"},
		"silent":            {"https" + strings.TrimPrefix(silent.url, "http"), nil, delivery.ReasonTimeout, "no answer within"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t)
			s.TrustForTest(test.authorities)
			set := settings(test.url)
			set.Timeout = time.Second
			out := send(t, s, set)
			require.Equal(t, test.want, out.Reason, out.Error)
			require.Contains(t, out.Error, test.text)
		})
	}
}

// TestClientCertificateWanted: in TLS 1.3 the refusal comes after the handshake and races with the closing of
// the connection, so that it is not always seen.
func TestClientCertificateWanted(t *testing.T) {
	server, authorities := tlsReceiver(t, &tls.Config{ClientAuth: tls.RequireAnyClientCert})
	s := newSender(t)
	s.TrustForTest(authorities)
	out := send(t, s, settings(server.URL))
	require.Contains(t, []delivery.Reason{delivery.ReasonTLS, delivery.ReasonReset}, out.Reason, out.Error)
	if out.Reason == delivery.ReasonTLS {
		require.Contains(t, out.Error, "certificate required")
	}
}
