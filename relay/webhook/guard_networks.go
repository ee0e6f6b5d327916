package webhook

import "net/netip"

// A network that nobody offers webhooks in, and what it is.
type network struct {
	prefix netip.Prefix
	rule   string
}

// globalUnicast is where all public IPv6 addresses lie (RFC 4291, section 2.4). Whatever is outside of it is
// refused, known or not; the networks there are listed only so that the error can name them.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// networks are the special-purpose networks of IANA's registries
// (https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry)
// and two more: multicast, and Azure's public address of the machine's own host. Exceptions that the registries
// make inside of them, for anycast services, are no receivers of webhooks.
//
// The table is our own: code.dny.dev/ssrf, which keeps one up to date, neither says which rule has matched nor
// knows addresses inside addresses, and takes ports only one by one.
var networks = []network{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network, RFC 791"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private, RFC 1918"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by a provider's customers, RFC 6598"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback, RFC 1122"},
	{netip.MustParsePrefix("168.63.129.16/32"), "Azure's wire server"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, RFC 3927"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private, RFC 1918"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments, RFC 6890"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation, RFC 5737"},
	{netip.MustParsePrefix("192.31.196.0/24"), "AS112, RFC 7535"},
	{netip.MustParsePrefix("192.52.193.0/24"), "multicast tunnels, RFC 7450"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relays, RFC 7526"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private, RFC 1918"},
	{netip.MustParsePrefix("192.175.48.0/24"), "AS112, RFC 7534"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarks, RFC 2544"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation, RFC 5737"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation, RFC 5737"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast, RFC 1112"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved, RFC 1112"},

	{netip.MustParsePrefix("2001::/32"), "Teredo, RFC 4380"},
	{netip.MustParsePrefix("2001::/23"), "protocol assignments, RFC 2928"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation, RFC 3849"},
	{netip.MustParsePrefix("2002::/16"), "6to4, RFC 3056"},
	{netip.MustParsePrefix("2620:4f:8000::/48"), "AS112, RFC 7534"},
	{netip.MustParsePrefix("3fff::/20"), "documentation, RFC 9637"},

	{netip.MustParsePrefix("::1/128"), "loopback, RFC 4291"},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible, RFC 4291"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4-translated, RFC 2765"},
	{netip.MustParsePrefix("64:ff9b::/96"), "NAT64, RFC 6052; list the prefix in delivery.nat64_prefixes if this network has one"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64, RFC 8215"},
	{netip.MustParsePrefix("100::/64"), "discarded, RFC 6666"},
	{netip.MustParsePrefix("100:0:0:1::/64"), "dummy prefix, RFC 9780"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing, RFC 9602"},
	{netip.MustParsePrefix("fc00::/7"), "private, RFC 4193"},
	{netip.MustParsePrefix("fe80::/10"), "link-local, RFC 4291"},
	{netip.MustParsePrefix("fec0::/10"), "site-local, RFC 3879"},
	{netip.MustParsePrefix("ff00::/8"), "multicast, RFC 4291"},
}

// forbidden reports whether an address is in a special-purpose network or outside of all public ones, and the
// rule that says so. addr is neither mapped nor zoned: no prefix contains an address that is.
func forbidden(addr netip.Addr) (rule string, is bool) {
	for _, n := range networks {
		if n.prefix.Contains(addr) {
			return n.rule, true
		}
	}
	if addr.Is6() && !globalUnicast.Contains(addr) {
		return "outside of 2000::/3, RFC 4291", true
	}
	return "", false
}
