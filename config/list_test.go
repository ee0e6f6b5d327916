package config_test

import (
	"net/netip"
	"net/url"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/config"
)

func TestListIsWrittenAsItIsRead(t *testing.T) {
	for text, want := range map[string]config.List{
		"[]": nil, " [] ": nil, "443": {"443"}, "10.0.0.0/8, fd00::/8 ,::1": {"10.0.0.0/8", "fd00::/8", "::1"},
	} {
		c := config.Default()
		require.NoError(t, c.Set("delivery.allow_networks", text))
		require.Equal(t, want, c.Delivery.AllowNetworks)
		printed, _ := c.Get("delivery.allow_networks")
		require.NoError(t, c.Set("delivery.allow_networks", printed))
		require.Equal(t, want, c.Delivery.AllowNetworks)
	}
	for _, text := range []string{",", "a,,b", "a,", " "} {
		c := config.Default()
		require.ErrorContains(t, c.Set("delivery.allow_ports", text), "has an empty element", text)
	}
}

// validated is what Validate says of one setting of an otherwise valid configuration.
func validated(t *testing.T, key, value string) error {
	t.Helper()
	c := config.Default()
	c.DatabaseURL = "postgres://db"
	require.NoError(t, c.Set(key, value))
	return c.Validate()
}

func TestNetworks(t *testing.T) {
	networks, err := config.List{"10.0.0.0/8", "192.168.7.9", "fd00::/8", "::1", "0.0.0.0/0"}.Networks()
	require.NoError(t, err)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.7.9/32"),
		netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("0.0.0.0/0")}, networks)
	for text, want := range map[string]string{
		"10.1.2.3/8":             `"10.1.2.3/8" has bits beyond its length: write 10.0.0.0/8 for the network or 10.1.2.3 for the address`,
		"::ffff:10.0.0.0/104":    `"::ffff:10.0.0.0/104" is IPv4 written as IPv6: write it as IPv4, as in 10.0.0.0/8`,
		"::ffff:10.0.0.1":        `"::ffff:10.0.0.1" is IPv4 written as IPv6: write it as IPv4, as in 10.0.0.0/8`,
		"fe80::1%eth0":           `"fe80::1%eth0" is neither a network nor an address: write 10.0.0.0/8, 10.1.2.3, fd00::/8 or fd00::1`,
		"10.0.0.0/33":            `"10.0.0.0/33" is neither a network nor an address: write 10.0.0.0/8, 10.1.2.3, fd00::/8 or fd00::1`,
		"10.0.0.0/8,db.internal": `"db.internal" is neither a network nor an address: write 10.0.0.0/8, 10.1.2.3, fd00::/8 or fd00::1`,
	} {
		require.EqualError(t, validated(t, "delivery.allow_networks", text), "delivery.allow_networks: "+want)
	}
}

func TestPorts(t *testing.T) {
	ports, err := config.List{"443", "8000-8999", "1-65535"}.Ports()
	require.NoError(t, err)
	require.Equal(t, []config.PortRange{{First: 443, Last: 443}, {First: 8000, Last: 8999}, {First: 1, Last: 65535}}, ports)
	for _, text := range []string{"0", "65536", "https", "90-80", "-80", "80-", "80-90-100", "+80"} {
		require.ErrorContains(t, validated(t, "delivery.allow_ports", text), "is neither a port nor a range of them", text)
	}
}

func TestNAT64Prefixes(t *testing.T) {
	for _, bits := range []string{"32", "40", "48", "56", "64", "96"} {
		require.NoError(t, validated(t, "delivery.nat64_prefixes", "2001:db8::/"+bits))
	}
	for _, text := range []string{"2001:db8::/33", "2001:db8::", "10.0.0.0/32"} {
		require.ErrorContains(t, validated(t, "delivery.nat64_prefixes", text), "is no NAT64 prefix", text)
	}
}

func TestProxy(t *testing.T) {
	c := config.Default()
	proxy, err := c.ProxyURL()
	require.NoError(t, err)
	require.Nil(t, proxy)
	for _, text := range []string{"http://relay:s3cret@proxy:3128", "https://proxy", "socks5://relay:s3cret@[::1]:1080"} {
		require.NoError(t, validated(t, "delivery.proxy", text))
		c.Delivery.Proxy = config.Secret(text)
		require.NotContains(t, c.Redacted().Delivery.Proxy.Reveal(), "s3cret")
		proxy, err := c.ProxyURL()
		require.NoError(t, err)
		want, err := url.Parse(text)
		require.NoError(t, err)
		require.Equal(t, want, proxy)
	}
	for _, text := range []string{"proxy:3128", "ftp://relay:s3cret@proxy", "http://:3128", "http://relay:s3cret@proxy:port", "s3cret"} {
		require.EqualError(t, validated(t, "delivery.proxy", text),
			"delivery.proxy: the value is no URL of a proxy: write http://host:3128, https://host:3128 or socks5://host:1080")
	}
}

func TestSwitchesNeedNoValueOnTheCommandLine(t *testing.T) {
	for args, want := range map[string]bool{"--delivery-allow-http": true, "--delivery-allow-http=true": true, "--delivery-allow-http=false": false} {
		fs := pflag.NewFlagSet("walhook", pflag.ContinueOnError)
		config.Flags(fs)
		require.NoError(t, fs.Parse([]string{args}))
		c := config.Default()
		require.NoError(t, c.SetFlags(fs))
		require.Equal(t, want, c.Delivery.AllowHTTP, args)
	}
}
