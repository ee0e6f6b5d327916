package ops

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Severity says what a finding costs.
type Severity string

// Severities, the worst first. With an error the relay cannot work, or loses what it promises to keep; a warning will
// become one, or does under circumstances.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
	SeverityInfo    Severity = "info"
	SeverityOK      Severity = "ok"
)

// severities in the order in which they are told.
var severities = []Severity{SeverityError, SeverityWarning, SeverityInfo, SeverityOK}

// Finding is one thing that was looked at.
type Finding struct {
	Code        string   `json:"code"` // stable, a row of DoctorCodes
	Severity    Severity `json:"severity"`
	What        string   `json:"what"`                  // what was found, with names and values, or what holds
	Explanation string   `json:"explanation,omitempty"` // why it matters
	Remedy      string   `json:"remedy,omitempty"`      // the statement or command that mends it
}

// DoctorOptions say what to look at, and what the relay is configured with.
type DoctorOptions struct {
	URL     string // of the database
	Slot    string
	Schema  int64         // the migration that this program needs
	Timeout time.Duration // of one connection; 0: 10 s

	StatusInterval  time.Duration // longest time between status messages to Postgres
	PartitionsAhead time.Duration
	WALDiskSize     int64 // bytes; 0: unknown
	Listen          string
	API             bool // API and dashboard are served there
	Token           bool // of the configuration: there is one
	// ReadSecret resolves a stored secret of a subscription as the relay would; nil: they are not tried.
	ReadSecret func(stored string, subscription uuid.UUID) error
	Keyset     bool // secrets at rest are encrypted

	SkipURLs bool
	// Allowed judges an address that requests would go to; its error says what allows it. nil allows all.
	Allowed func(scheme string, to netip.AddrPort) error
	// Roots are the authorities that receivers' certificates may come from; nil: the machine's.
	Roots *x509.CertPool
	// Proxied tells that requests go through a proxy, which alone can say whether a receiver is reachable.
	Proxied bool

	Old time.Duration    // transactions that are older are found; 0: an hour
	Now func() time.Time // the clock of this machine; nil: time.Now
}

// doctor is one examination.
type doctor struct {
	DoctorOptions
	conn     *pgx.Conn
	server   int  // version, as server_version_num
	schema   bool // the schema is there
	findings []Finding
}

// check is one look, which makes findings of the codes that bear its name in DoctorCodes.
type check struct {
	name   string
	schema bool // it reads schema outbox
	look   func(*doctor, context.Context) error
}

// checks are made in this order.
var checks = []check{
	{"server", false, (*doctor).lookAtServer},
	{"version", false, (*doctor).lookAtVersion},
	{"capacity", false, (*doctor).lookAtCapacity},
	{"retention", false, (*doctor).lookAtRetention},
	{"timeouts", false, (*doctor).lookAtTimeouts},
	{"durability", false, (*doctor).lookAtDurability},
	{"connection", false, (*doctor).lookAtConnection},
	{"replication", false, (*doctor).lookAtReplication},
	{"clock", false, (*doctor).lookAtClock},
	{"managed", false, (*doctor).lookAtService},
	{"role", false, (*doctor).lookAtRole},
	{"privileges", true, (*doctor).lookAtPrivileges},
	{"public", true, (*doctor).lookAtPublic},
	{"slots", false, (*doctor).lookAtSlots},
	{"abandoned", true, (*doctor).lookAtAbandonedSlots},
	{"failover", false, (*doctor).lookAtFailover},
	{"sessions", false, (*doctor).lookAtSessions},
	{"prepared", false, (*doctor).lookAtPrepared},
	{"schema", true, (*doctor).lookAtSchema},
	{"tables", true, (*doctor).lookAtTables},
	{"partitions", true, (*doctor).lookAtPartitions},
	{"defaults", true, (*doctor).lookAtDefaultPartitions},
	{"epochs", true, (*doctor).lookAtEpochs},
	{"recoveries", true, (*doctor).lookAtRecoveries},
	{"subscriptions", true, (*doctor).lookAtSubscriptions},
	{"queue", true, (*doctor).lookAtQueue},
	{"dead", true, (*doctor).lookAtDeadLetters},
	{"alerts", true, (*doctor).lookAtAlerts},
	{"secrets", true, (*doctor).lookAtSecrets},
	{"listen", false, (*doctor).lookAtListen},
	{"tokens", true, (*doctor).lookAtTokens},
	{"urls", true, (*doctor).lookAtURLs},
}

// Diagnose makes every check and returns what it found, the worst first, and what holds. A check that fails is a finding
// itself and does not keep the others from being made. That the database cannot be reached is a finding too, and the only one.
func Diagnose(ctx context.Context, o DoctorOptions) []Finding {
	d := &doctor{DoctorOptions: o}
	d.Timeout = cmp.Or(d.Timeout, 10*time.Second)
	d.Old = cmp.Or(d.Old, time.Hour)
	if d.Now == nil {
		d.Now = time.Now
	}
	if err := d.connect(ctx); err != nil {
		d.found("connection", fmt.Sprintf("the database cannot be asked: %v", err), connectionRemedy(err))
		return d.findings
	}
	defer func() { _ = d.conn.Close(context.WithoutCancel(ctx)) }()
	for _, c := range checks {
		if c.schema && !d.schema {
			continue // what is missing is found by who looks for the schema
		}
		d.make(ctx, c)
	}
	return Sorted(d.findings)
}

// Sorted puts the worst findings first, and those of one severity into the order of their codes' table.
func Sorted(findings []Finding) []Finding {
	place := func(f Finding) int {
		return slices.Index(severities, f.Severity)*len(DoctorCodes) + slices.IndexFunc(DoctorCodes, func(c DoctorCode) bool { return c.Code == f.Code })
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(place(a), place(b)) })
	return findings
}

// connect opens the session and asks what the checks depend on. Nothing is set in the startup message: a pooler would refuse it.
func (d *doctor) connect(ctx context.Context) error {
	cfg, err := pgx.ParseConfig(d.URL)
	if err != nil {
		return err
	}
	cfg.ConnectTimeout = d.Timeout
	cfg.RuntimeParams["application_name"] = "walhook doctor"
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // nothing prepared, so that a pooler can be told from a failure
	if d.conn, err = pgx.ConnectConfig(ctx, cfg); err != nil {
		return err
	}
	if _, err = d.conn.Exec(ctx, "SET statement_timeout = '15s'; SET lock_timeout = '2s'; SET search_path = ''; SET TimeZone = 'UTC'"); err == nil {
		err = d.conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int,
			EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'outbox' AND c.relname = 'checkpoint')`).
			Scan(&d.server, &d.schema)
	}
	if err != nil {
		_ = d.conn.Close(context.WithoutCancel(ctx))
	}
	return err
}

// make makes one check. For each of its codes under which nothing was found, it notes what holds.
func (d *doctor) make(ctx context.Context, c check) {
	before := len(d.findings)
	err := d.look(ctx, c)
	found := d.findings[before:]
	if err != nil {
		d.found("check_failed", fmt.Sprintf("check %q could not be made: %v", c.name, err), d.failureRemedy(err))
		return
	}
	for _, code := range DoctorCodes {
		if code.Check == c.name && !slices.ContainsFunc(found, func(f Finding) bool { return f.Code == code.Code }) {
			d.findings = append(d.findings, Finding{Code: code.Code, Severity: SeverityOK, What: code.Holds})
		}
	}
}

// look makes sure that there is a session: an earlier check may have lost it.
func (d *doctor) look(ctx context.Context, c check) error {
	if d.conn.IsClosed() {
		if err := d.connect(ctx); err != nil {
			return err
		}
	}
	return c.look(d, ctx)
}

// found notes a finding with the severity and the explanation of its code.
func (d *doctor) found(code, what, remedy string) {
	c := DoctorCodeOf(code)
	d.findings = append(d.findings, Finding{Code: code, Severity: c.Severity, What: what, Explanation: c.Why, Remedy: remedy})
}

// foundAs is found with another severity than the code's own.
func (d *doctor) foundAs(severity Severity, code, what, remedy string) {
	d.found(code, what, remedy)
	d.findings[len(d.findings)-1].Severity = severity
}

// connectionRemedy says what to look at, by the SQLSTATE
// (https://www.postgresql.org/docs/current/errcodes-appendix.html) where there is one.
func connectionRemedy(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "check host and port of database_url, that Postgres runs (pg_isready), and that no firewall lies between"
	}
	switch pg.Code {
	case "28P01", "28000":
		return "check user and password of database_url, and pg_hba.conf: a line like \"hostssl <database> <user> <address of this machine> scram-sha-256\", then SELECT pg_reload_conf()"
	case "3D000":
		return "check the database's name in database_url, or run CREATE DATABASE"
	case "53300":
		return "raise max_connections (ALTER SYSTEM SET max_connections = …, then restart Postgres), or end sessions that nobody needs"
	}
	return "check database_url; the server's log says more"
}

// failureRemedy says what lets a check be made.
func (d *doctor) failureRemedy(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		return fmt.Sprintf("run walhook doctor as the role that owns schema outbox, or GRANT walhook_relay TO %s (walhook init --roles makes it)", d.role())
	}
	return "run walhook doctor again; if it stays, the server's log says more"
}

// role is the session's role as an identifier.
func (d *doctor) role() string { return ident(d.conn.Config().User) }

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes text for a statement.
func literal(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// ask runs a query of any number of rows.
func ask[T any](ctx context.Context, d *doctor, sql string, args ...any) ([]T, error) {
	rows, err := d.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[T])
}

// askOne runs a query of one row.
func askOne[T any](ctx context.Context, d *doctor, sql string, args ...any) (T, error) {
	rows, err := d.conn.Query(ctx, sql, args...)
	if err != nil {
		var none T
		return none, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[T])
}

// someOf names at most ten.
func someOf(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
