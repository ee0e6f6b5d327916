package receiver

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DBTX is what the store needs of pgx: a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type DBTX interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// SQLDBTX is what the store needs of database/sql with any Postgres driver: a *sql.DB, a *sql.Conn or a *sql.Tx.
type SQLDBTX interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// PostgresOptions may be left empty.
type PostgresOptions struct {
	// Table has the ids, as name or schema.name: webhook_seen when empty.
	Table string

	// Lease is how long a handler may take: 5 minutes when zero. An id whose handler has crashed can be claimed
	// again after it, so it should be longer than handlers take and shorter than the sender keeps trying.
	Lease time.Duration
}

// Postgres remembers ids in a table: for several processes, and across restarts.
type Postgres struct {
	exec  exec
	table string // quoted
	lease string // in seconds
}

// exec runs a statement and returns how many rows it changed or found. All arguments are text with casts in the
// statement, so that every way to run it works alike, and with them connection poolers.
type exec func(ctx context.Context, statement string, args ...any) (int64, error)

// NewPostgres makes a store over pgx. The table must be there: see Create.
func NewPostgres(db DBTX, o PostgresOptions) *Postgres { return newPostgres(pgxExec(db), o) }

// NewPostgresSQL is NewPostgres over database/sql.
func NewPostgresSQL(db SQLDBTX, o PostgresOptions) *Postgres { return newPostgres(sqlExec(db), o) }

func newPostgres(run exec, o PostgresOptions) *Postgres {
	if o.Table == "" {
		o.Table = "webhook_seen"
	}
	if o.Lease <= 0 {
		o.Lease = 5 * time.Minute
	}
	return &Postgres{
		exec: run, table: pgx.Identifier(strings.SplitN(o.Table, ".", 2)).Sanitize(),
		lease: strconv.FormatFloat(o.Lease.Seconds(), 'f', -1, 64),
	}
}

func pgxExec(db DBTX) exec {
	return func(ctx context.Context, statement string, args ...any) (int64, error) {
		tag, err := db.Exec(ctx, statement, args...)
		return tag.RowsAffected(), err
	}
}

func sqlExec(db SQLDBTX) exec {
	return func(ctx context.Context, statement string, args ...any) (int64, error) {
		result, err := db.ExecContext(ctx, statement, args...)
		if err != nil {
			return 0, err
		}
		return result.RowsAffected()
	}
}

// The statements; %s is the table. A row is a claim until it has handled_at. DO NOTHING does not wait for a
// handler's transaction that has marked the id, only for another claim.
const (
	createSeen = `CREATE TABLE IF NOT EXISTS %s (
		id           text        PRIMARY KEY,
		claim        text,
		leased_until timestamptz,
		handled_at   timestamptz
	)`
	insertClaim = `INSERT INTO %s (id, claim, leased_until)
		VALUES ($1::text, $2::text, clock_timestamp() + $3::text::float8 * interval '1 second') ON CONFLICT (id) DO NOTHING`
	takeOver = `UPDATE %s SET claim = $2::text, leased_until = clock_timestamp() + $3::text::float8 * interval '1 second'
		WHERE id = $1::text AND handled_at IS NULL AND leased_until < clock_timestamp()`
	isHandled = `SELECT 1 FROM %s WHERE id = $1::text AND handled_at IS NOT NULL`
	finish    = `UPDATE %s SET handled_at = clock_timestamp() WHERE id = $1::text AND claim = $2::text AND handled_at IS NULL`
	release   = `DELETE FROM %s WHERE id = $1::text AND claim = $2::text AND handled_at IS NULL`
	mark      = `INSERT INTO %[1]s AS s (id, handled_at) VALUES ($1::text, clock_timestamp())
		ON CONFLICT (id) DO UPDATE SET handled_at = EXCLUDED.handled_at WHERE s.handled_at IS NULL`
	prune = `DELETE FROM %s WHERE handled_at < clock_timestamp() - $1::text::float8 * interval '1 second'
		OR handled_at IS NULL AND leased_until < clock_timestamp()`
)

func (p *Postgres) run(ctx context.Context, run exec, what, statement string, args ...any) (int64, error) {
	n, err := run(ctx, fmt.Sprintf(statement, p.table), args...)
	if err != nil {
		return 0, fmt.Errorf("%s in %s: %w", what, p.table, err)
	}
	return n, nil
}

// Create makes the table if it is not there.
func (p *Postgres) Create(ctx context.Context) error {
	_, err := p.run(ctx, p.exec, "keep seen ids", createSeen)
	return err
}

// Claim implements Seen.
func (p *Postgres) Claim(ctx context.Context, id string) (Claim, error) {
	c := postgresClaim{p, id, rand.Text()}
	for _, statement := range []string{insertClaim, takeOver} {
		switch n, err := p.run(ctx, p.exec, "claim an id", statement, id, c.token, p.lease); {
		case err != nil:
			return nil, err
		case n == 1:
			return c, nil
		}
	}
	switch n, err := p.run(ctx, p.exec, "look an id up", isHandled, id); {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, ErrInProgress
	}
	return nil, ErrHandled
}

// postgresClaim changes its row only while it is its own: after the lease another may have taken it over.
type postgresClaim struct {
	store *Postgres
	id    string
	token string
}

func (c postgresClaim) Done(ctx context.Context) error {
	_, err := c.store.run(ctx, c.store.exec, "mark an id", finish, c.id, c.token)
	return err
}

func (c postgresClaim) Release(ctx context.Context) error {
	_, err := c.store.run(ctx, c.store.exec, "release an id", release, c.id, c.token)
	return err
}

// Mark marks an id as handled in the transaction in which the handler takes effect, so that both are committed or
// neither is: the effect happens exactly once, whatever crashes. Where another transaction has marked it, the
// error is ErrHandled, and the handler should roll back and succeed. It waits for a transaction that has marked
// the id and is not over yet.
//
// id is the one under which the delivery is claimed: [IDOf] for an Endpoint, [ClaimID] for a Manager.
func (p *Postgres) Mark(ctx context.Context, tx DBTX, id string) error {
	return p.mark(ctx, pgxExec(tx), id)
}

// MarkSQL is Mark over database/sql.
func (p *Postgres) MarkSQL(ctx context.Context, tx SQLDBTX, id string) error {
	return p.mark(ctx, sqlExec(tx), id)
}

func (p *Postgres) mark(ctx context.Context, run exec, id string) error {
	n, err := p.run(ctx, run, "mark an id", mark, id)
	if err == nil && n == 0 {
		return ErrHandled
	}
	return err
}

// Prune forgets ids that were handled longer ago than keep, and claims whose lease is over. It returns how many.
// Call it now and then: the table grows until it is called.
func (p *Postgres) Prune(ctx context.Context, keep time.Duration) (int64, error) {
	return p.run(ctx, p.exec, "forget ids", prune, strconv.FormatFloat(keep.Seconds(), 'f', -1, 64))
}
