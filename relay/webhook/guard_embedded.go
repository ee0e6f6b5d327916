package webhook

import (
	"net/netip"
	"slices"
)

// embedded returns the IPv4 address that an IPv6 address stands for, and the invalid one when it stands for none.
// translated reports that the address is nothing but a way to write the embedded one: it is behind a NAT64
// prefix of the operator's. The well-known prefix 64:ff9b::/96 counts when the operator lists it; otherwise
// nothing translates it here, and it is refused like all else outside of 2000::/3, as are 6to4 and Teredo.
func (p *Policy) embedded(addr netip.Addr) (inner netip.Addr, translated bool) {
	if addr.Is4() {
		return netip.Addr{}, false
	}
	if i := slices.IndexFunc(p.NAT64, func(n netip.Prefix) bool { return n.Contains(addr) }); i >= 0 {
		return behindNAT64(addr, p.NAT64[i].Bits()), true
	}
	return inISATAP(addr), false
}

// behindNAT64 reads the IPv4 address after a prefix of that many bits. It skips bits 64 to 71, which are zero
// (RFC 6052, section 2.2).
func behindNAT64(addr netip.Addr, bits int) netip.Addr {
	const reserved = 8
	from := addr.As16()
	var v4 [4]byte
	at := bits / 8
	for i := range v4 {
		if at == reserved {
			at++
		}
		v4[i] = from[at]
		at++
	}
	return netip.AddrFrom4(v4)
}

// inISATAP reads the IPv4 address of an ISATAP interface: its identifier is 0000:5efe or 0200:5efe and the
// address (RFC 5214, section 6.1).
func inISATAP(addr netip.Addr) netip.Addr {
	b := addr.As16()
	if b[8]&^0x02 != 0 || b[9] != 0 || b[10] != 0x5e || b[11] != 0xfe {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b[12:]))
}
