package main

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/webhook"
)

// options makes the sender's options for a relay on that address with that database, and returns its log too.
func options(t *testing.T, cfg config.Config, listen, url string) (webhook.Options, string) {
	t.Helper()
	database, err := pgconn.ParseConfig(url)
	require.NoError(t, err)
	addr, err := net.ResolveTCPAddr("tcp", listen)
	require.NoError(t, err)
	var log bytes.Buffer
	o, err := senderOptions(t.Context(), cfg, addr, database, zerolog.New(&log))
	require.NoError(t, err)
	return o, log.String()
}

func TestLoopbackIsAllowedWhereTheDatabaseIs(t *testing.T) {
	t.Parallel()
	for url, local := range map[string]bool{
		"postgres://127.0.0.1:5432/app":                  true,
		"postgres://localhost/app":                       true,
		"postgres://[::1]/app":                           true,
		"host=/run/postgresql dbname=app":                true,
		"postgres://10.0.0.5/app":                        false,
		"postgres://127.0.0.1,10.0.0.5/app":              false,
		"postgres://10.0.0.5/app?sslmode=prefer":         false,
		"host=/run/postgresql,10.0.0.5 dbname=app":       false,
		"postgres://no-such-host.invalid:5432/app":       false,
		"postgres://127.0.0.1,no-such-host.invalid/app":  false,
		"host=/run/postgresql,127.0.0.1 dbname=app":      true,
		"postgres://127.0.0.1:6432/app?sslmode=disable":  true,
		"postgres://169.254.169.254/app?sslmode=disable": false,
	} {
		cfg := config.Default()
		o, log := options(t, cfg, "127.0.0.1:8080", url)
		require.Equal(t, local, o.Policy.AllowLoopback, url)
		require.Equal(t, local, bytes.Contains([]byte(log), []byte("delivery.allow_loopback")), "%s: it is said when it was not asked for", url)
		for setting, want := range map[string]bool{"always": true, "never": false} {
			cfg.Delivery.AllowLoopback = setting
			o, log := options(t, cfg, "127.0.0.1:8080", url)
			require.Equal(t, want, o.Policy.AllowLoopback)
			require.NotContains(t, log, "delivery.allow_loopback")
		}
	}
}

func TestOwnEndpointsAreKnown(t *testing.T) {
	t.Parallel()
	o, _ := options(t, config.Default(), "127.0.0.1:8080", "postgres://127.0.0.1:15432,[::1]:15433,10.0.0.5/app")
	for _, own := range []string{"127.0.0.1:8080", "127.0.0.1:15432", "[::1]:15433", "10.0.0.5:5432"} {
		require.Contains(t, o.Policy.Own, netip.MustParseAddrPort(own))
		require.ErrorContains(t, o.Policy.Check("https", netip.MustParseAddrPort(own)), "the relay's own or its database's")
	}
	for _, local := range []string{"127.0.0.1:15432", "127.0.0.2:15432", "[::1]:15432", "127.0.0.1:15433"} {
		require.ErrorContains(t, o.Policy.Check("https", netip.MustParseAddrPort(local)), "the relay's own or its database's",
			"a database on loopback is behind every loopback address")
	}
	o, _ = options(t, config.Default(), "0.0.0.0:8080", "host=/run/postgresql port=15434 dbname=app")
	require.ErrorContains(t, o.Policy.Check("https", netip.MustParseAddrPort("127.0.0.1:15434")), "the relay's own or its database's")
	addrs, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.(*net.IPNet).IP)
		require.True(t, ok)
		require.ErrorContains(t, o.Policy.Check("https", netip.AddrPortFrom(ip, 8080)), "the relay's own or its database's", a)
	}
}

func TestPolicyIsTheConfiguration(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.Delivery.AllowHTTP = true
	cfg.Delivery.AllowNetworks = config.List{"10.0.0.0/8", "fd00::1"}
	cfg.Delivery.AllowPorts = config.List{"443", "8000-8999"}
	cfg.Delivery.NAT64Prefixes = config.List{"64:ff9b::/96"}
	cfg.Delivery.Proxy = "http://relay:s3cret@proxy:3128"
	o, _ := options(t, cfg, "127.0.0.1:8080", "postgres://10.0.0.5/app")
	require.True(t, o.Policy.AllowHTTP)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::1/128")}, o.Policy.AllowNetworks)
	require.Equal(t, []webhook.PortRange{{First: 443, Last: 443}, {First: 8000, Last: 8999}}, o.Policy.AllowPorts)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96")}, o.Policy.NAT64)
	require.Equal(t, "proxy:3128", o.Proxy.Host)
	o, _ = options(t, config.Default(), "127.0.0.1:8080", "postgres://10.0.0.5/app")
	require.Nil(t, o.Proxy)
	require.Empty(t, o.Policy.AllowPorts)
	require.False(t, o.Policy.AllowHTTP)
}
