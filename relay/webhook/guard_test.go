package webhook_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/webhook"
)

// ranges are what nobody may send to: first and last address, worked out by hand from the registries, so that
// they share nothing with the prefixes of the code.
var ranges = []struct{ first, last, name string }{
	{"0.0.0.0", "0.255.255.255", "this network"},
	{"10.0.0.0", "10.255.255.255", "private"},
	{"100.64.0.0", "100.127.255.255", "provider"},
	{"127.0.0.0", "127.255.255.255", "loopback"},
	{"168.63.129.16", "168.63.129.16", "Azure"},
	{"169.254.0.0", "169.254.255.255", "link-local"},
	{"172.16.0.0", "172.31.255.255", "private"},
	{"192.0.0.0", "192.0.0.255", "protocol assignments"},
	{"192.0.2.0", "192.0.2.255", "documentation"},
	{"192.31.196.0", "192.31.196.255", "AS112"},
	{"192.52.193.0", "192.52.193.255", "multicast tunnels"},
	{"192.88.99.0", "192.88.99.255", "6to4"},
	{"192.168.0.0", "192.168.255.255", "private"},
	{"192.175.48.0", "192.175.48.255", "AS112"},
	{"198.18.0.0", "198.19.255.255", "benchmarks"},
	{"198.51.100.0", "198.51.100.255", "documentation"},
	{"203.0.113.0", "203.0.113.255", "documentation"},
	{"224.0.0.0", "239.255.255.255", "multicast"},
	{"240.0.0.0", "255.255.255.255", "reserved"},
	{"::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""},
	{"2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", ""},
	{"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"},
	{"2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "6to4"},
	{"2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", "AS112"},
	{"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"},
	{"4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""},
}

// naive judges an address of 4 or 16 bytes by comparing bytes.
func naive(addr []byte) (allowed bool) {
	if len(addr) == 16 && bytes.Equal(addr[:12], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}) {
		return naive(addr[12:])
	}
	for _, r := range ranges {
		first, last := netip.MustParseAddr(r.first).AsSlice(), netip.MustParseAddr(r.last).AsSlice()
		if len(first) == len(addr) && bytes.Compare(first, addr) <= 0 && bytes.Compare(addr, last) <= 0 {
			return false
		}
	}
	if len(addr) == 16 && (bytes.Equal(addr[8:12], []byte{0, 0, 0x5e, 0xfe}) || bytes.Equal(addr[8:12], []byte{2, 0, 0x5e, 0xfe})) {
		return naive(addr[12:])
	}
	return true
}

// check judges an address on port 443 for https.
func check(p webhook.Policy, addr string) error {
	return p.Check("https", netip.AddrPortFrom(netip.MustParseAddr(addr), 443))
}

// TestEdgesOfRanges tries the first and the last address of every range, and their neighbours outside of it, each
// one also in its mapped form.
func TestEdgesOfRanges(t *testing.T) {
	t.Parallel()
	for _, r := range ranges {
		first, last := netip.MustParseAddr(r.first), netip.MustParseAddr(r.last)
		for _, addr := range []netip.Addr{first, last, first.Prev(), last.Next()} {
			if !addr.IsValid() {
				continue
			}
			forms := []netip.Addr{addr}
			if addr.Is4() {
				forms = append(forms, netip.AddrFrom16(addr.As16()))
			} else {
				forms = append(forms, addr.WithZone("eth0"))
			}
			for _, form := range forms {
				err := check(webhook.Policy{}, form.String())
				require.Equal(t, naive(addr.AsSlice()), err == nil, "%s: %v", form, err)
			}
		}
		if r.name != "" && first != netip.IPv4Unspecified() {
			require.ErrorContains(t, check(webhook.Policy{}, r.first), r.name)
		}
	}
}

// TestAddresses probes what attackers try: metadata services, and private addresses inside others.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for addr, rule := range map[string]string{
		"169.254.169.254":                   "(link-local, RFC 3927)", // metadata of most clouds
		"169.254.170.2":                     "(link-local, RFC 3927)", // ECS
		"100.100.100.200":                   "(shared by a provider's customers, RFC 6598)",
		"168.63.129.16":                     "(Azure's wire server)",
		"192.0.0.192":                       "(protocol assignments, RFC 6890)", // Oracle
		"fd00:ec2::254":                     "(private, RFC 4193)",              // AWS
		"fd20:ce::254":                      "(private, RFC 4193)",              // Google
		"255.255.255.255":                   "(reserved, RFC 1112)",
		"0.0.0.0":                           "(it names no host)",
		"::":                                "(it names no host)",
		"::ffff:0.0.0.0":                    "(it names no host)",
		"0.1.2.3":                           "(this network, RFC 791)",
		"::1":                               "(loopback, RFC 4291)",
		"::ffff:127.0.0.1":                  "(loopback, RFC 1122)",
		"::ffff:169.254.169.254":            "(link-local, RFC 3927)",
		"::7f00:1":                          "(IPv4-compatible, RFC 4291)",
		"::169.254.169.254":                 "(IPv4-compatible, RFC 4291)",
		"::ffff:0:10.0.0.1":                 "(IPv4-translated, RFC 2765)",
		"64:ff9b::10.0.0.1":                 "(NAT64, RFC 6052; list the prefix in delivery.nat64_prefixes if this network has one)",
		"64:ff9b::8.8.8.8":                  "(NAT64, RFC 6052; list the prefix in delivery.nat64_prefixes if this network has one)",
		"64:ff9b:1::a00:1":                  "(local NAT64, RFC 8215)",
		"64:ff9b:1:ffff:ffff:ffff:a00:1":    "(local NAT64, RFC 8215)",
		"64:ff9b:2::1":                      "(outside of 2000::/3, RFC 4291)",
		"100::1":                            "(discarded, RFC 6666)",
		"100:0:0:1::1":                      "(dummy prefix, RFC 9780)",
		"5f00::1":                           "(segment routing, RFC 9602)",
		"2001::1":                           "(Teredo, RFC 4380)",
		"2001:0:4136:e378:8000:63bf:f5ff:1": "(Teredo, RFC 4380)",
		"2001:2::1":                         "(protocol assignments, RFC 2928)", // benchmarks
		"2001:20::1":                        "(protocol assignments, RFC 2928)", // ORCHID
		"2002:a00:1::1":                     "(6to4, RFC 3056)",
		"2002:7f00:1::":                     "(6to4, RFC 3056)",
		"2002:808:808::1":                   "(6to4, RFC 3056)",
		"fe80::1%eth0":                      "(link-local, RFC 4291)",
		"fe80::5efe:10.0.0.1":               "(it embeds 10.0.0.1, private, RFC 1918)",
		"febf:ffff::1":                      "(link-local, RFC 4291)",
		"fec0::1":                           "(site-local, RFC 3879)",
		"ff02::1":                           "(multicast, RFC 4291)",
		"ff0e::1":                           "(multicast, RFC 4291)",
		"e000::1":                           "(outside of 2000::/3, RFC 4291)",
		"2606:4700::5efe:10.0.0.1":          "(it embeds 10.0.0.1, private, RFC 1918)",
		"2606:4700::200:5efe:127.0.0.1":     "(it embeds 127.0.0.1, loopback, RFC 1122)",
	} {
		err := check(webhook.Policy{}, addr)
		var refused *webhook.RefusedError
		require.ErrorAs(t, err, &refused, addr)
		require.Contains(t, err.Error(), " is refused "+rule+": ", addr)
		require.Empty(t, refused.Address.Zone())
	}
	for _, addr := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "168.63.129.15", "172.32.0.0", "192.0.1.1",
		"198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8", "2000::1", "2001:200::1", "2001:4860:4860::8888", "2003::1",
		"2606:4700::1111", "2620:4f:8001::1", "2a00::1", "3ffe:ffff::1", "3fff:1000::1", "2606:4700::5efe:8.8.8.8",
	} {
		require.NoError(t, check(webhook.Policy{}, addr), addr)
	}
	require.EqualError(t, check(webhook.Policy{}, "169.254.169.254"),
		"address 169.254.169.254 is refused (link-local, RFC 3927): add it to delivery.allow_networks to allow it")
	require.Error(t, (&webhook.Policy{}).Check("https", netip.AddrPort{}))
}

func TestAllowedNetworks(t *testing.T) {
	t.Parallel()
	p := webhook.Policy{AllowNetworks: []netip.Prefix{
		netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("127.0.0.7/32"), netip.MustParsePrefix("fe80::/10"),
	}}
	for _, addr := range []string{"10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "127.0.0.7", "fe80::1%eth0", "8.8.8.8", "2606:4700::5efe:10.1.2.3"} {
		require.NoError(t, check(p, addr), addr)
	}
	for _, addr := range []string{"10.2.0.0", "fd00:2::5", "127.0.0.1", "::1", "64:ff9b::10.1.2.3", "2606:4700::5efe:10.2.0.0"} {
		require.Error(t, check(p, addr), addr)
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	p := webhook.Policy{AllowLoopback: true, NAT64: []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96")},
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for _, addr := range []string{"127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"} {
		require.NoError(t, check(p, addr), addr)
		require.EqualError(t, check(webhook.Policy{}, addr), "address "+netip.MustParseAddr(addr).Unmap().String()+
			" is refused (loopback, RFC "+map[bool]string{true: "4291", false: "1122"}[addr == "::1"]+"): set delivery.allow_loopback to always to allow it")
	}
	for _, addr := range []string{"0.0.0.0", "::", "10.0.0.1", "64:ff9b::127.0.0.1"} {
		require.Error(t, check(p, addr), "%s: only this machine's own loopback", addr)
	}
}

// TestNAT64 has RFC 6052's own examples (section 2.4), with a public and a private address in place of a
// documented one.
func TestNAT64(t *testing.T) {
	t.Parallel()
	for prefix, form := range map[string]struct{ public, private string }{
		"2001:db8::/32":            {"2001:db8:808:808::", "2001:db8:a00:1::"},
		"2001:db8:100::/40":        {"2001:db8:108:808:8::", "2001:db8:10a:0:1::"},
		"2001:db8:122::/48":        {"2001:db8:122:808:8:800::", "2001:db8:122:a00:0:100::"},
		"2001:db8:122:300::/56":    {"2001:db8:122:308:8:808::", "2001:db8:122:30a:0:1::"},
		"2001:db8:122:344::/64":    {"2001:db8:122:344:8:808:800::", "2001:db8:122:344:a:0:100::"},
		"2001:db8:122:344::/96":    {"2001:db8:122:344::808:808", "2001:db8:122:344::a00:1"},
		"64:ff9b::/96":             {"64:ff9b::8.8.8.8", "64:ff9b::10.0.0.1"},
		"2a00:1:2:3:0:6464:0:0/96": {"2a00:1:2:3:0:6464:808:808", "2a00:1:2:3:0:6464:a00:1"},
	} {
		p := webhook.Policy{NAT64: []netip.Prefix{netip.MustParsePrefix(prefix)}}
		require.NoError(t, check(p, form.public), form.public)
		require.EqualError(t, check(p, form.private), "address "+netip.MustParseAddr(form.private).String()+
			" is refused (it embeds 10.0.0.1, private, RFC 1918): add it to delivery.allow_networks to allow it")
		p.AllowNetworks = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
		require.NoError(t, check(p, form.private), form.private)
		p.Own = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:443")}
		require.ErrorContains(t, check(p, form.private), "the relay's own or its database's")
	}
}

func TestOwnEndpoints(t *testing.T) {
	t.Parallel()
	p := webhook.Policy{AllowHTTP: true, AllowLoopback: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		Own: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("10.0.0.5:15432"), netip.MustParseAddrPort("[::]:9090")}}
	for _, to := range []string{"127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", "10.0.0.5:15432", "127.0.0.1:9090", "127.8.8.8:9090", "[::1]:9090", "0.0.0.0:8080", "[::]:8080"} {
		require.ErrorContains(t, p.Check("http", netip.MustParseAddrPort(to)), "no setting allows it", to)
	}
	for _, to := range []string{"127.0.0.1:8081", "127.0.0.2:8080", "10.0.0.5:8080", "10.0.0.6:15432", "10.0.0.5:9090"} {
		require.NoError(t, p.Check("http", netip.MustParseAddrPort(to)), to)
	}
}

func TestPortsOfRequests(t *testing.T) {
	t.Parallel()
	at := func(p webhook.Policy, port uint16) error {
		return p.Check("https", netip.AddrPortFrom(netip.MustParseAddr("8.8.8.8"), port))
	}
	for _, port := range []uint16{80, 443, 1024, 8080, 8443, 9000, 65535} {
		require.NoError(t, at(webhook.Policy{}, port), port)
	}
	for _, port := range []uint16{1433, 1521, 2375, 2379, 2380, 3306, 4222, 5432, 5672, 6222, 6379, 6432, 8222, 9042, 9092, 9200, 9300, 11211, 26257, 27017} {
		require.ErrorContains(t, at(webhook.Policy{}, port), "(databases and brokers listen there): list it in delivery.allow_ports to allow it", port)
	}
	for _, port := range []uint16{0, 1, 22, 25, 79, 81, 442, 444, 1023} {
		require.ErrorContains(t, at(webhook.Policy{}, port), "(below 1024 and neither 80 nor 443)", port)
	}
	listed := webhook.Policy{AllowPorts: []webhook.PortRange{{First: 25, Last: 25}, {First: 5432, Last: 5440}}}
	for _, port := range []uint16{25, 5432, 5436, 5440} {
		require.NoError(t, at(listed, port), port)
	}
	require.EqualError(t, at(listed, 443), "port 443 of 8.8.8.8 is refused (not in delivery.allow_ports): list it in delivery.allow_ports to allow it")
	require.Error(t, at(listed, 5441))
	for port := range uint16(28000) {
		require.True(t, webhook.DefaultPort(port+32768), "a port that Linux hands out may be anybody's")
	}
}

func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	public, loopback := netip.MustParseAddrPort("8.8.8.8:80"), netip.MustParseAddrPort("[::1]:80")
	p := webhook.Policy{AllowLoopback: true}
	require.EqualError(t, p.Check("http", public), "http is refused: use https, or set delivery.allow_http")
	require.NoError(t, p.Check("https", public))
	require.NoError(t, p.Check("http", loopback), "it never leaves the machine")
	p = webhook.Policy{AllowHTTP: true}
	require.NoError(t, p.Check("http", public))
	require.ErrorContains(t, p.Check("http", loopback), "delivery.allow_loopback", "http is not the question there")
}

// FuzzPolicy compares the policy with the naive one.
func FuzzPolicy(f *testing.F) {
	for _, r := range ranges {
		f.Add(netip.MustParseAddr(r.first).AsSlice())
		f.Add(netip.MustParseAddr(r.last).Next().AsSlice())
	}
	for _, addr := range []string{"::ffff:10.0.0.1", "::ffff:8.8.8.8", "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:8.8.8.8", "64:ff9b::8.8.8.8", "::1"} {
		f.Add(netip.MustParseAddr(addr).AsSlice())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		err := (&webhook.Policy{}).Check("https", netip.AddrPortFrom(addr, 443))
		require.Equal(t, naive(raw), err == nil, "%s: %v", addr, err)
		if err != nil {
			require.LessOrEqual(t, len(err.Error()), 300)
		}
	})
}
