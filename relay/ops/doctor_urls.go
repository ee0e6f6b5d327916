package ops

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Bounds of the look at receivers.
const (
	mostHosts     = 100
	hostTimeout   = 2 * time.Second
	hostsAtOnce   = 16
	expiresWithin = 14 * 24 * time.Hour
)

// endpoint is a host and port that active subscriptions send to.
type endpoint struct {
	scheme, host, port string
	subscriptions      int64
}

func (e endpoint) String() string { return e.scheme + "://" + net.JoinHostPort(e.host, e.port) }

// refusal is an address that must not be sent to.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

// lookAtURLs connects to each receiver's host, as the relay would and without sending anything: no request, only the TLS
// handshake where there is one.
func (d *doctor) lookAtURLs(ctx context.Context) error {
	if d.SkipURLs {
		return nil
	}
	all, err := d.endpoints(ctx)
	if err != nil {
		return err
	}
	switch {
	case d.Proxied && len(all) > 0:
		d.found("urls_unchecked", fmt.Sprintf("requests to %d hosts go through delivery.proxy", len(all)), "walhook subscriptions test <id> sends a test event")
		return nil
	case len(all) > mostHosts:
		d.found("urls_unchecked", fmt.Sprintf("there are %d hosts, and %d were tried", len(all), mostHosts), "walhook subscriptions test <id> sends a test event to a receiver")
		all = all[:mostHosts]
	}
	results := make([]Finding, len(all))
	var g errgroup.Group
	g.SetLimit(hostsAtOnce)
	for i, e := range all {
		g.Go(func() error {
			results[i] = d.try(ctx, e)
			return nil
		})
	}
	_ = g.Wait()
	for _, f := range results {
		if f.Code != "" {
			d.found(f.Code, f.What, f.Remedy)
		}
	}
	return nil
}

// endpoints are the distinct hosts of active subscriptions, those of most subscriptions first.
func (d *doctor) endpoints(ctx context.Context) ([]endpoint, error) {
	type row struct {
		Origin string
		N      int64
	}
	rows, err := ask[row](ctx, d, `SELECT lower(substring(url FROM '^[^:]+://[^/?]*')), count(*) FROM outbox.subscriptions
		WHERE is_active GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10000`)
	if err != nil {
		return nil, fmt.Errorf("read the subscriptions' addresses: %w", err)
	}
	all := make([]endpoint, 0, len(rows))
	for _, r := range rows {
		u, err := url.Parse(r.Origin)
		if err != nil || u.Hostname() == "" {
			continue // the subscription is invalid, which is found elsewhere
		}
		all = append(all, endpoint{u.Scheme, u.Hostname(), cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]), r.N})
	}
	return all, nil
}

// try connects to one host and words what is wrong.
func (d *doctor) try(ctx context.Context, e endpoint) Finding {
	ctx, cancel := context.WithTimeoutCause(ctx, hostTimeout, fmt.Errorf("no answer within %s", hostTimeout))
	defer cancel()
	expires, err := d.reach(ctx, e)
	which := fmt.Sprintf("%s (%d subscriptions)", e, e.subscriptions)
	var refused refusal
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &refused):
		return Finding{Code: "url_refused", What: fmt.Sprintf("%s is refused: %v", which, refused.err), Remedy: "change the subscription's url, or the setting that the text names"}
	case errors.As(err, &untrusted), isHostname(err):
		return Finding{Code: "certificate_invalid", What: fmt.Sprintf("the certificate of %s is not accepted: %v", which, err),
			Remedy: fmt.Sprintf("the receiver needs a certificate for its name from a known authority; openssl s_client -connect %s -servername %s shows the present one", net.JoinHostPort(e.host, e.port), e.host)}
	case err != nil:
		return Finding{Code: "url_unreachable", What: fmt.Sprintf("%s cannot be connected to: %v", which, reason(ctx, err)),
			Remedy: fmt.Sprintf("try curl -sv %s/ from here; if the receiver is gone: walhook subscriptions deactivate <id>", e)}
	case !expires.IsZero() && expires.Sub(d.Now()) < expiresWithin:
		return Finding{Code: "certificate_expires", What: fmt.Sprintf("the certificate of %s expires on %s", which, expires.UTC().Format(time.DateOnly)), Remedy: "the receiver must renew it, and serve the new one"}
	}
	return Finding{}
}

// reason tells the time limit rather than the context that it ended.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func isHostname(err error) bool {
	var name x509.HostnameError
	return errors.As(err, &name)
}

// reach connects, and returns when the receiver's certificate expires, if it has one.
func (d *doctor) reach(ctx context.Context, e endpoint) (expires time.Time, err error) {
	dialer := &net.Dialer{ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err == nil && d.Allowed != nil {
			err = d.Allowed(e.scheme, to)
		}
		if err != nil {
			return refusal{err}
		}
		return nil
	}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(e.host, e.port))
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = conn.Close() }()
	if e.scheme != "https" {
		return time.Time{}, nil
	}
	secured := tls.Client(conn, &tls.Config{ServerName: e.host, RootCAs: d.Roots, MinVersion: tls.VersionTLS12})
	if err := secured.HandshakeContext(ctx); err != nil {
		return time.Time{}, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured.ConnectionState().PeerCertificates[0].NotAfter, nil
}
