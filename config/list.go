package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// List is several values: in YAML a list, elsewhere separated by commas. "[]" is the empty one.
type List []string

// String writes the list as it is read.
func (l List) String() string {
	if len(l) == 0 {
		return "[]"
	}
	return strings.Join(l, ",")
}

// parseList reads a list whose elements are not looked at; spaces around them mean nothing.
func parseList(s string) (List, error) {
	if strings.TrimSpace(s) == "[]" {
		return nil, nil
	}
	var l List
	for element := range strings.SplitSeq(s, ",") {
		if element = strings.TrimSpace(element); element == "" {
			return nil, fmt.Errorf("%q has an empty element: write the elements with one comma between them", s)
		}
		l = append(l, element)
	}
	return l, nil
}

// Networks reads the elements as networks (10.0.0.0/8) and addresses (10.1.2.3). The error names the first one
// that is neither.
func (l List) Networks() ([]netip.Prefix, error) {
	networks := make([]netip.Prefix, 0, len(l))
	for _, element := range l {
		network, err := parseNetwork(element)
		if err != nil {
			return nil, err
		}
		networks = append(networks, network)
	}
	return networks, nil
}

// parseNetwork wants exactly what is meant: a network with bits beyond its length is more often a slip than
// an address, and would open all of the network.
func parseNetwork(s string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(s)
	if addr, addrErr := netip.ParseAddr(s); addrErr == nil && addr.Zone() == "" {
		network, err = addr.Prefix(addr.BitLen())
	}
	switch {
	case err != nil:
		return network, fmt.Errorf("%q is neither a network nor an address: write 10.0.0.0/8, 10.1.2.3, fd00::/8 or fd00::1", s)
	case network.Addr().Is4In6():
		return network, fmt.Errorf("%q is IPv4 written as IPv6: write it as IPv4, as in 10.0.0.0/8", s)
	case network != network.Masked():
		return network, fmt.Errorf("%q has bits beyond its length: write %s for the network or %s for the address", s, network.Masked(), network.Addr())
	}
	return network, nil
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// Ports reads the elements as ports (443) and ranges of them (8000-8999). The error names the first one that
// is neither.
func (l List) Ports() ([]PortRange, error) {
	ports := make([]PortRange, 0, len(l))
	for _, element := range l {
		low, high, ranged := strings.Cut(element, "-")
		if !ranged {
			high = low
		}
		first, err1 := strconv.ParseUint(low, 10, 16)
		last, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || first == 0 || last < first {
			return nil, fmt.Errorf("%q is neither a port nor a range of them: write 443 or 8000-8999, from 1 to 65535", element)
		}
		ports = append(ports, PortRange{First: uint16(first), Last: uint16(last)})
	}
	return ports, nil
}

// ProxyURL reads delivery.proxy; nil when none is set. The error never shows the value.
func (c Config) ProxyURL() (*url.URL, error) { return parseProxy(c.Delivery.Proxy.Reveal()) }

func parseProxy(proxy string) (*url.URL, error) {
	if proxy == "" {
		return nil, nil
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme) {
		return nil, errors.New("the value is no URL of a proxy: write http://host:3128, https://host:3128 or socks5://host:1080")
	}
	return u, nil
}

func checkProxy(proxy string) error {
	_, err := parseProxy(proxy)
	return err
}

func checkNetworks(text string) error {
	l, err := parseList(text)
	if err == nil {
		_, err = l.Networks()
	}
	return err
}

func checkPorts(text string) error {
	l, err := parseList(text)
	if err == nil {
		_, err = l.Ports()
	}
	return err
}

// checkNAT64 wants the lengths that an IPv4 address can follow (RFC 6052, section 2.2).
func checkNAT64(text string) error {
	l, err := parseList(text)
	if err != nil {
		return err
	}
	networks, err := l.Networks()
	if err != nil {
		return err
	}
	for _, n := range networks {
		if n.Addr().Is4() || !slices.Contains([]int{32, 40, 48, 56, 64, 96}, n.Bits()) {
			return fmt.Errorf("%q is no NAT64 prefix: give an IPv6 network of 32, 40, 48, 56, 64 or 96 bits, as in 64:ff9b::/96", n)
		}
	}
	return nil
}
