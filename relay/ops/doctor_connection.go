package ops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// lookAtConnection finds out whether something lies between. A pooler hands out process ids of its own (PgBouncer makes them up)
// in BackendKeyData (https://www.postgresql.org/docs/current/protocol-flow.html), while pg_backend_pid() asks Postgres itself.
func (d *doctor) lookAtConnection(ctx context.Context) error {
	type row struct {
		PID   int64
		Local bool
	}
	r, err := askOne[row](ctx, d, "SELECT pg_backend_pid()::bigint, inet_server_addr() IS NULL OR host(inet_server_addr()) = host(inet_client_addr())")
	if err != nil {
		return fmt.Errorf("look at the session: %w", err)
	}
	host, port := d.conn.Config().Host, d.conn.Config().Port
	switch {
	case int64(d.conn.PgConn().PID()) != r.PID:
		d.found("pooler", fmt.Sprintf("%s is a pooler: it calls the session %d, and Postgres %d", net.JoinHostPort(host, fmt.Sprint(port)), d.conn.PgConn().PID(), r.PID), connectDirectly)
	case port == 6432, port == 6543, strings.Contains(host, "-pooler."), strings.Contains(host, ".pooler."):
		d.foundAs(SeverityWarning, "pooler", fmt.Sprintf("host and port of database_url, %s, are usually a pooler's", net.JoinHostPort(host, fmt.Sprint(port))), connectDirectly)
	}
	if d.conn.Config().TLSConfig == nil && !r.Local && !strings.HasPrefix(host, "/") {
		d.found("database_tls", fmt.Sprintf("the connection to %s is not encrypted", host), "put sslmode=verify-full (and sslrootcert) into database_url; on the server: "+alter("ssl", "on")+andReload)
	}
	return nil
}

const connectDirectly = "connect directly: give host and port of Postgres itself in database_url, usually port 5432"

// lookAtReplication opens a replication connection as the relay does, and asks it for the system's identity.
func (d *doctor) lookAtReplication(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.Timeout, fmt.Errorf("no answer within %s", d.Timeout))
	defer cancel()
	cfg, err := pgconn.ParseConfig(d.URL)
	if err != nil {
		return err
	}
	cfg.RuntimeParams["replication"] = "database"
	cfg.RuntimeParams["application_name"] = "walhook doctor"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err == nil {
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		_, err = conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	}
	if err != nil {
		d.found("replication_connection", fmt.Sprintf("a replication connection fails: %v", err), d.replicationRemedy(err))
	}
	return nil
}

// replicationRemedy goes by the SQLSTATE. Poolers refuse the parameter "replication" with a protocol violation.
func (d *doctor) replicationRemedy(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return connectDirectly
	}
	switch pg.Code {
	case "42501":
		return "ALTER ROLE " + d.role() + " REPLICATION"
	case "28000", "28P01":
		return "allow role " + d.conn.Config().User + " in pg_hba.conf from this machine, or ALTER ROLE " + d.role() + " REPLICATION"
	case "53300":
		return "ALTER SYSTEM SET max_wal_senders = '20'" + andRestart
	}
	return connectDirectly
}

// lookAtClock compares the clocks: the database's must lie within the round trip, give or take 2 s.
func (d *doctor) lookAtClock(ctx context.Context) error {
	const most = 2 * time.Second
	before := d.Now()
	r, err := askOne[struct{ Now time.Time }](ctx, d, "SELECT clock_timestamp()")
	if err != nil {
		return fmt.Errorf("ask for the time: %w", err)
	}
	after := d.Now()
	var off time.Duration // of the database
	switch {
	case r.Now.Before(before):
		off = r.Now.Sub(before)
	case r.Now.After(after):
		off = r.Now.Sub(after)
	}
	if off.Abs() > most {
		d.found("clock", fmt.Sprintf("the database's clock is %s %s this machine's", off.Abs().Round(100*time.Millisecond), aheadOr(off)),
			"synchronise both with NTP: run timedatectl set-ntp true on each, and look at chronyc tracking")
	}
	return nil
}

func aheadOr(off time.Duration) string {
	if off < 0 {
		return "behind"
	}
	return "ahead of"
}

// lookAtListen tells who can reach the relay's own address.
func (d *doctor) lookAtListen(context.Context) error {
	host, _, err := net.SplitHostPort(d.Listen)
	if err != nil || host == "localhost" {
		return nil // configuration has refused what is no address
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil
	}
	what := fmt.Sprintf("listen is %s: plain HTTP, with health and metrics for everybody", d.Listen)
	if d.API {
		what += ", and API and dashboard behind tokens"
	}
	d.found("listen_public", what, "set WALHOOK_LISTEN=127.0.0.1:8080 and let a reverse proxy with TLS stand before it; WALHOOK_METRICS_LISTEN puts metrics on another address")
	return nil
}
