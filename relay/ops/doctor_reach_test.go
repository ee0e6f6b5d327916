package ops_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/sql"
)

func TestDoctorWithoutADatabase(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	found := ops.Diagnose(t.Context(), ops.DoctorOptions{URL: "postgres://u:hidden@" + closed.Addr().String() + "/app", Slot: "s"})
	require.Len(t, found, 1)
	require.Equal(t, []any{"connection", ops.SeverityError}, []any{found[0].Code, found[0].Severity})
	require.Contains(t, found[0].Remedy, "pg_isready")
	require.NotContains(t, fmt.Sprint(found), "hidden")

	p := newPatient(t, healthy)
	found = ops.Diagnose(t.Context(), ops.DoctorOptions{URL: strings.Replace(p.url, "/postgres?", "/nowhere?", 1), Slot: "s"})
	require.Len(t, found, 1)
	require.Contains(t, found[0].Remedy, "CREATE DATABASE")
}

// The role that a relay is meant to have misses nothing; each right that is taken away is named, and the remedy gives it back.
func TestDoctorNamesMissingRights(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	require.NoError(t, sql.GrantRoles(t.Context(), p.url))
	p.exec(t, `CREATE ROLE "the relay" LOGIN REPLICATION IN ROLE walhook_relay`)
	o := p.options
	o.URL = as(t, p.url, "the relay")
	api := o
	api.API, api.Token = true, true
	found := ops.Diagnose(t.Context(), api)
	require.Empty(t, codesOf(found, ops.SeverityError), "%+v", found)
	for _, code := range []string{"privileges", "superuser", "check_failed"} {
		require.Empty(t, of(found, code))
	}
	f := of(found, "monitoring_rights")
	require.Len(t, f, 1)
	p.do(t, f[0].Remedy)
	require.Empty(t, of(ops.Diagnose(t.Context(), o), "monitoring_rights"))

	for taken, says := range map[string]string{
		"UPDATE, DELETE ON outbox.deliveries": `GRANT UPDATE, DELETE ON outbox.deliveries TO "the relay"`,
		"USAGE ON SCHEMA outbox":              `GRANT USAGE ON SCHEMA outbox TO "the relay"`,
		"SELECT ON outbox.events_default":     `GRANT SELECT ON outbox.events_default TO "the relay"`,
		"INSERT ON outbox.attempts":           `GRANT INSERT ON outbox.attempts TO "the relay"`,
		"UPDATE ON outbox.subscriptions":      `GRANT UPDATE ("status"), UPDATE ("status_reason"), UPDATE ("verified_at"), UPDATE ("verification_error"), UPDATE ("allowed_rate"), UPDATE ("is_active") ON outbox.subscriptions TO "the relay"`,
	} {
		p.exec(t, "REVOKE "+taken+" FROM walhook_relay")
		f := of(ops.Diagnose(t.Context(), o), "privileges")
		require.Len(t, f, 1, taken)
		require.True(t, strings.HasPrefix(f[0].Remedy, says), f[0].Remedy)
		p.do(t, strings.SplitN(f[0].Remedy, " (all", 2)[0])
		require.Empty(t, of(ops.Diagnose(t.Context(), o), "privileges"), taken)
	}

	f = of(ops.Diagnose(t.Context(), api), "privileges")
	require.Len(t, f, 1, "API and dashboard write all columns")
	require.True(t, strings.HasPrefix(f[0].Remedy, `GRANT UPDATE ON outbox.subscriptions TO "the relay"`), f[0].Remedy)
	p.do(t, strings.SplitN(f[0].Remedy, " (all", 2)[0])
	require.Empty(t, of(ops.Diagnose(t.Context(), api), "privileges"))
}

// Checks that cannot be made are findings, and the others are made.
func TestDoctorAsARoleWithoutRights(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	p.exec(t, "CREATE ROLE stranger LOGIN")
	o := p.options
	o.URL = as(t, p.url, "stranger")
	found := ops.Diagnose(t.Context(), o)
	require.NotEmpty(t, of(found, "check_failed"))
	require.Contains(t, of(found, "check_failed")[0].Remedy, `GRANT walhook_relay TO "stranger"`)
	require.Greater(t, len(of(found, "privileges")), 20)
	f := of(found, "replication_connection")
	require.Len(t, f, 1)
	require.Contains(t, f[0].Remedy, `ALTER ROLE "stranger" REPLICATION`)
	require.NotEmpty(t, codesOf(found, ops.SeverityOK))
}

// pooler passes sessions on as PgBouncer does: under process ids of its own, and without replication.
func pooler(t *testing.T, at string) (url string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(at)
	require.NoError(t, err)
	server := net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var g errgroup.Group
	g.Go(func() error {
		for {
			client, err := listener.Accept()
			if err != nil {
				return nil
			}
			g.Go(func() error { pass(client, server); return nil })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); _ = g.Wait() })
	return strings.Replace(at, server, listener.Addr().String(), 1)
}

// pass serves one client to its end.
func pass(client net.Conn, address string) {
	defer func() { _ = client.Close() }()
	toClient := pgproto3.NewBackend(client, client)
	hello, err := toClient.ReceiveStartupMessage()
	if err != nil {
		return
	}
	if m, ok := hello.(*pgproto3.StartupMessage); !ok || m.Parameters["replication"] != "" {
		toClient.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: replication"})
		_ = toClient.Flush()
		return
	}
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	toServer := pgproto3.NewFrontend(server, server)
	toServer.Send(hello.(*pgproto3.StartupMessage))
	_ = toServer.Flush()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		answer(toServer, toClient)
		_ = client.Close()
	}()
	for {
		m, err := toClient.Receive()
		if err != nil {
			break
		}
		toServer.Send(m)
		if toServer.Flush() != nil {
			break
		}
	}
	_ = server.Close()
	<-ended
}

// answer passes what the server says on, but for its process id.
func answer(from *pgproto3.Frontend, to *pgproto3.Backend) {
	for {
		m, err := from.Receive()
		if err != nil {
			return
		}
		if key, ok := m.(*pgproto3.BackendKeyData); ok {
			key.ProcessID ^= 0x55555555
		}
		to.Send(m)
		if to.Flush() != nil {
			return
		}
	}
}

func TestDoctorFindsAPooler(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	o := p.options
	o.URL = pooler(t, p.url)
	found := ops.Diagnose(t.Context(), o)
	for _, code := range []string{"pooler", "replication_connection"} {
		f := of(found, code)
		require.Len(t, f, 1, code)
		require.Equal(t, ops.SeverityError, f[0].Severity)
		require.Contains(t, f[0].Remedy, "connect directly")
	}
	require.Contains(t, of(found, "replication_connection")[0].What, "unsupported startup parameter")
}

// certified starts a receiver with a certificate for 127.0.0.1 that expires then, and returns it and its authority.
func certified(t *testing.T, expires time.Time) (url string, authority *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: expires, IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	authority, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that does not accept the certificate says so
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, authority
}

func TestDoctorTriesReceivers(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	var requests int
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	t.Cleanup(plain.Close)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	good, goodRoot := certified(t, time.Now().Add(90*day))
	soon, soonRoot := certified(t, time.Now().Add(3*day))
	unknown, _ := certified(t, time.Now().Add(90*day))
	refused := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refused.Close)
	o := p.options
	o.Roots = x509.NewCertPool()
	o.Roots.AddCert(goodRoot)
	o.Roots.AddCert(soonRoot)
	o.Allowed = func(scheme string, to netip.AddrPort) error {
		if scheme+"://"+to.String() == refused.URL {
			return errors.New("list it to allow it")
		}
		return nil
	}
	for _, u := range []string{plain.URL, closed.URL, good, soon, unknown, refused.URL, "https://no-such-host.invalid"} {
		p.exec(t, "INSERT INTO outbox.subscriptions (name, url) VALUES ('one', $1 || '/a?token=hidden'), ('two', $1 || '/b')", u)
	}
	p.exec(t, "INSERT INTO outbox.subscriptions (name, url, is_active) VALUES ('off', 'http://127.0.0.1:1/', false)")
	found := ops.Diagnose(t.Context(), o)
	require.NotContains(t, fmt.Sprint(found), "hidden", "paths may hold secrets")
	require.NotContains(t, fmt.Sprint(found), plain.URL, "well")
	require.NotContains(t, fmt.Sprint(found), good)
	require.NotContains(t, fmt.Sprint(found), "127.0.0.1:1 ", "inactive")
	for code, u := range map[string]string{"certificate_expires": soon, "certificate_invalid": unknown, "url_refused": refused.URL} {
		f := of(found, code)
		require.Len(t, f, 1, "%s: %+v", code, found)
		require.Contains(t, f[0].What, u+" (2 subscriptions)")
	}
	require.Len(t, of(found, "url_unreachable"), 2)
	require.Contains(t, of(found, "url_refused")[0].What, "list it to allow it")
	plain.Close()
	require.Zero(t, requests, "no request is made")

	o.SkipURLs = true
	require.Empty(t, of(ops.Diagnose(t.Context(), o), "url_unreachable"))
}

// At most a hundred hosts are tried.
func TestDoctorTriesOnlySomeReceivers(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	p.exec(t, "INSERT INTO outbox.subscriptions (name, url) SELECT 's', 'http://127.0.0.1:' || 10000 + g FROM generate_series(1, 150) AS g")
	o := p.options
	tried := make(chan struct{}, 1000)
	o.Allowed = func(string, netip.AddrPort) error {
		tried <- struct{}{}
		return errors.New("no")
	}
	found := ops.Diagnose(t.Context(), o)
	require.Len(t, of(found, "url_refused"), 100)
	require.Len(t, tried, 100)
	require.Len(t, of(found, "urls_unchecked"), 1)
	require.Contains(t, of(found, "urls_unchecked")[0].What, "150 hosts")
}
