package outbox

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DBTX is what Publish and PublishBatch need of pgx: a pgx.Tx, or a *pgx.Conn that is in a transaction.
type DBTX interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Querier is what Emit needs of pgx: a pgx.Tx, or a *pgx.Conn that is in a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// SQLDBTX is what PublishSQL and PublishBatchSQL need of database/sql: a *sql.Tx, or a *sql.Conn that is in
// a transaction.
type SQLDBTX interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// SQLQuerier is what EmitSQL needs of database/sql: a *sql.Tx, or a *sql.Conn that is in a transaction.
type SQLQuerier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// The statements. Each parameter is text, whatever driver, protocol or pooler carries it; nothing is
// returned by the inserts, so that a role with INSERT alone can publish.
const (
	insertEvent = `
INSERT INTO outbox.events (id, type, payload, key, tenant, source, correlation_id, headers)
VALUES ($1::text::uuid, $2::text, $3::text::jsonb, $4::text, $5::text, $6::text, $7::text, $8::text::jsonb)`

	emitEvent = `
SELECT outbox.emit($1::text, $2::text::jsonb, key => $3::text, tenant => $4::text, source => $5::text,
                   correlation_id => $6::text, headers => $7::text::jsonb)::text`
)

// Publish inserts the event into outbox.events and returns its id. tx must be the transaction of the
// change that the event reports.
//
// An event that the database would refuse is an error that wraps ErrInvalid, and tx stays usable. Any other
// error is the database's, wrapped, and has ended the transaction.
func Publish(ctx context.Context, tx DBTX, e Event) (uuid.UUID, error) {
	return publish(e, func(sql string, args ...any) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	})
}

// PublishSQL is Publish for database/sql.
func PublishSQL(ctx context.Context, tx SQLDBTX, e Event) (uuid.UUID, error) {
	return publish(e, func(sql string, args ...any) error {
		_, err := tx.ExecContext(ctx, sql, args...)
		return err
	})
}

// publish is what both flavours share.
func publish(e Event, exec func(sql string, args ...any) error) (uuid.UUID, error) {
	r, id, err := e.identified()
	if err != nil {
		return uuid.Nil, fmt.Errorf("publish event: %w", err)
	}
	err = exec(insertEvent, r.ID, r.Type, string(r.Payload), argument(r.Key), r.Tenant,
		argument(r.Source), argument(r.CorrelationID), string(r.Headers))
	if err != nil {
		return uuid.Nil, fmt.Errorf("publish event %s (%s): %w", id, e.Type, err)
	}
	return id, nil
}

// Emit writes the event as a transactional logical message, leaving no row in outbox.events, and returns
// the id that the database gave it. The relay keeps the event with its deliveries. tx must be the
// transaction of the change that the event reports.
//
// An event that has an ID already is refused, because outbox.emit() makes its own. Errors are as with
// Publish.
func Emit(ctx context.Context, tx Querier, e Event) (uuid.UUID, error) {
	return emit(e, func(args ...any) scanner { return tx.QueryRow(ctx, emitEvent, args...) })
}

// EmitSQL is Emit for database/sql.
func EmitSQL(ctx context.Context, tx SQLQuerier, e Event) (uuid.UUID, error) {
	return emit(e, func(args ...any) scanner { return tx.QueryRowContext(ctx, emitEvent, args...) })
}

// scanner is a row of either flavour.
type scanner interface{ Scan(dest ...any) error }

// emit is what both flavours share. The id is read as text, which every driver can do.
func emit(e Event, query func(args ...any) scanner) (uuid.UUID, error) {
	if e.ID != uuid.Nil {
		return uuid.Nil, fmt.Errorf("emit event: %w: it has the id %s, but outbox.emit() makes the id: leave it empty or use Publish",
			ErrInvalid, e.ID)
	}
	r, err := e.encode()
	if err != nil {
		return uuid.Nil, fmt.Errorf("emit event: %w", err)
	}
	var text string
	err = query(r.Type, string(r.Payload), argument(r.Key), r.Tenant,
		argument(r.Source), argument(r.CorrelationID), string(r.Headers)).Scan(&text)
	if err != nil {
		return uuid.Nil, fmt.Errorf("emit event (%s): %w", e.Type, err)
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return uuid.Nil, fmt.Errorf("read the id of emitted event (%s): %w", e.Type, err)
	}
	return id, nil
}

// identified encodes the event and makes its id when it has none. Ids made by one process ascend.
func (e Event) identified() (row, uuid.UUID, error) {
	r, err := e.encode()
	if err != nil {
		return row{}, uuid.Nil, err
	}
	id := e.ID
	if id == uuid.Nil {
		if id, err = uuid.NewV7(); err != nil {
			return row{}, uuid.Nil, fmt.Errorf("make an event id: %w", err)
		}
		r.ID = id.String()
	}
	return r, id, nil
}

// argument turns a nil pointer into an untyped nil, which every driver sends as NULL.
func argument(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}
