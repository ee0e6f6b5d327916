package webhook

import (
	"fmt"
	"net/netip"
	"slices"
)

// Policy says where requests may go. It is judged when an address is dialled, after DNS, for every address that
// is dialled, so that no answer of a name server can come between the look and the leap. The zero value is the
// strictest: https only, to public addresses and no others, on the default ports.
//
// It must come from the operator, never from a subscription: whoever may write one picks its URL.
type Policy struct {
	AllowHTTP     bool             // plain http also to addresses that are not loopback
	AllowLoopback bool             // 127.0.0.0/8 and ::1
	AllowNetworks []netip.Prefix   // although private or reserved; IPv4 as IPv4, not mapped
	AllowPorts    []PortRange      // these and no others; none: DefaultPort decides
	NAT64         []netip.Prefix   // of the operator's network; 32, 40, 48, 56, 64 or 96 bits (RFC 6052)
	Own           []netip.AddrPort // of the relay and its database: refused whatever is allowed; an unspecified address stands for every loopback address
}

// RefusedError is a connection that Policy forbids. Not a byte was sent.
type RefusedError struct {
	Address netip.Addr // as it was judged, without zone; the invalid one when the scheme alone was the reason
	Reason  string     // the whole text, with the rule and the remedy
}

func (e *RefusedError) Error() string { return e.Reason }

// refuse words a refusal: "address 10.0.0.1 is refused (private, RFC 1918): add it to … to allow it".
func refuse(addr netip.Addr, rule, remedy string) error {
	return &RefusedError{Address: addr, Reason: fmt.Sprintf("address %s is refused (%s): %s", addr, rule, remedy)}
}

// What to do about a refusal.
const (
	allowNetwork  = "add it to delivery.allow_networks to allow it"
	allowLoopback = "set delivery.allow_loopback to always to allow it"
	allowNothing  = "no setting allows it"
	httpRefused   = "http is refused: use https, or set delivery.allow_http"
)

// Check says why a request of that scheme ("http" or "https") may not go to an address; nil when it may. Its
// error is a *RefusedError. IPv4 addresses in IPv6 form are judged as IPv4, and zones are ignored.
func (p *Policy) Check(scheme string, to netip.AddrPort) error {
	addr := to.Addr().Unmap().WithZone("")
	if err := p.checkAddress(addr, to.Port()); err != nil {
		return err
	}
	if !p.allowsPort(to.Port()) {
		return &RefusedError{Address: addr, Reason: fmt.Sprintf("port %d of %s is refused (%s): list it in delivery.allow_ports to allow it",
			to.Port(), addr, portRule(p.AllowPorts, to.Port()))}
	}
	if scheme != "https" && !p.AllowHTTP && !addr.IsLoopback() {
		return &RefusedError{Address: addr, Reason: httpRefused}
	}
	return nil
}

// checkAddress judges an address together with the IPv4 address that may be embedded in it: whoever translates
// or tunnels it sends to the latter.
func (p *Policy) checkAddress(addr netip.Addr, port uint16) error {
	if !addr.IsValid() || addr.IsUnspecified() {
		return refuse(addr, "it names no host", allowNothing) // and Linux would take it for this machine
	}
	inner, translated := p.embedded(addr)
	if p.isOwn(addr, port) || inner.IsValid() && p.isOwn(inner, port) {
		return refuse(addr, "the relay's own or its database's", allowNothing)
	}
	switch {
	case p.allowsNetwork(addr), p.AllowLoopback && addr.IsLoopback():
		return nil
	case addr.IsLoopback():
		rule, _ := forbidden(addr)
		return refuse(addr, rule, allowLoopback)
	case inner.IsValid() && (inner.IsLoopback() || !p.allowsNetwork(inner)):
		if rule, is := forbidden(inner); is {
			return refuse(addr, "it embeds "+inner.String()+", "+rule, allowNetwork)
		}
	}
	if translated {
		return nil
	}
	if rule, is := forbidden(addr); is {
		return refuse(addr, rule, allowNetwork)
	}
	return nil
}

func (p *Policy) allowsNetwork(addr netip.Addr) bool {
	return slices.ContainsFunc(p.AllowNetworks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// isOwn reports that the relay itself or its database listens there.
func (p *Policy) isOwn(addr netip.Addr, port uint16) bool {
	return slices.ContainsFunc(p.Own, func(own netip.AddrPort) bool {
		host := own.Addr().Unmap().WithZone("")
		return own.Port() == port && (host == addr || host.IsUnspecified() && addr.IsLoopback())
	})
}
