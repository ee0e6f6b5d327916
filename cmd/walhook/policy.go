package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/webhook"
)

// resolveTimeout bounds looking up the database's host when the relay starts.
const resolveTimeout = 5 * time.Second

// senderOptions is how requests are made: where they may go comes from the configuration alone, and what the
// relay itself and its database listen on is never among it.
func senderOptions(ctx context.Context, cfg config.Config, listen net.Addr, database *pgconn.Config, log zerolog.Logger) (webhook.Options, error) {
	o := webhook.Options{UserAgent: "walhook/" + version, Log: log}
	if err := configured(&o, cfg); err != nil {
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	endpoints, local := databaseEndpoints(ctx, database, log)
	o.Policy.Own = append(listening(listen), endpoints...)
	switch {
	case cfg.Delivery.AllowLoopback == "always":
		o.Policy.AllowLoopback = true
	case cfg.Delivery.AllowLoopback == "auto" && local:
		o.Policy.AllowLoopback = true
		log.Warn().Str("setting", "delivery.allow_loopback").
			Msg("subscriptions may send to this machine's loopback addresses, because the database is reached over loopback: set it to always or never")
	}
	return o, nil
}

// configured takes over what needs no look at the machine.
func configured(o *webhook.Options, cfg config.Config) (err error) {
	o.Origin = cfg.Delivery.Origin
	o.Policy.AllowHTTP = cfg.Delivery.AllowHTTP
	if o.Policy.AllowNetworks, err = cfg.Delivery.AllowNetworks.Networks(); err != nil {
		return fmt.Errorf("delivery.allow_networks: %w", err)
	}
	if o.Policy.NAT64, err = cfg.Delivery.NAT64Prefixes.Networks(); err != nil {
		return fmt.Errorf("delivery.nat64_prefixes: %w", err)
	}
	ports, err := cfg.Delivery.AllowPorts.Ports()
	if err != nil {
		return fmt.Errorf("delivery.allow_ports: %w", err)
	}
	for _, p := range ports {
		o.Policy.AllowPorts = append(o.Policy.AllowPorts, webhook.PortRange(p))
	}
	if o.Proxy, err = cfg.ProxyURL(); err != nil {
		return fmt.Errorf("delivery.proxy: %w", err)
	}
	return nil
}

// listening is where the relay itself can be reached. Whoever listens on all addresses is there on each one of
// this machine's.
func listening(addr net.Addr) []netip.AddrPort {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return nil
	}
	at := tcp.AddrPort()
	own := []netip.AddrPort{netip.AddrPortFrom(at.Addr().Unmap(), at.Port())}
	if !own[0].Addr().IsUnspecified() {
		return own
	}
	addrs, _ := net.InterfaceAddrs() // without them loopback is still covered
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, netip.AddrPortFrom(ip.Unmap(), at.Port()))
			}
		}
	}
	return own
}

// databaseEndpoints is where the database's hosts listen, as far as they can be resolved now, and whether all
// of them are this machine: reached over loopback or a Unix socket. Postgres then listens on other loopback addresses
// than that one as well: by default on those of both families.
func databaseEndpoints(ctx context.Context, c *pgconn.Config, log zerolog.Logger) (own []netip.AddrPort, local bool) {
	hosts := []*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port}}
	local = true
	for _, h := range append(hosts, c.Fallbacks...) {
		if network, _ := pgconn.NetworkAddress(h.Host, h.Port); network == "unix" {
			own = append(own, netip.AddrPortFrom(netip.IPv4Unspecified(), h.Port))
			continue
		}
		addrs, err := resolve(ctx, h.Host)
		if err != nil {
			log.Warn().Err(err).Str("host", h.Host).
				Msg("the database's host cannot be resolved now, so that only its port keeps subscriptions from sending there")
			local = false
		}
		for _, addr := range addrs {
			own = append(own, netip.AddrPortFrom(addr.Unmap(), h.Port))
			if addr.Unmap().IsLoopback() {
				own = append(own, netip.AddrPortFrom(netip.IPv4Unspecified(), h.Port))
				continue
			}
			local = false
		}
	}
	return own, local
}

// resolve looks a host up; addresses stand for themselves.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, resolveTimeout, fmt.Errorf("no answer within %s", resolveTimeout))
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}
