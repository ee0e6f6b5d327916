// Package admin is what people and programs may look at and change: webhooks, their calls and statistics, deliveries,
// dead letters, events, event types, tokens and the state of replication. The REST API and the dashboard are two faces
// of it. It reads the tables and views of schema outbox and writes subscriptions, event types, tokens, tests, replays and
// events; it keeps no state of its own.
//
// Everything is asked for through a Desk, which stands for one principal and shows no row of another tenant.
package admin

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DB is a connection or a pool.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Options are what a Store is made with.
type Options struct {
	Slot string // the replication slot, of the relay that serves

	// Token is a token from the configuration, with every scope and for all tenants; empty: none.
	Token string

	// Seal encrypts a secret before it is stored in the row of that subscription; nil: secrets are stored as given.
	Seal func(secret string, subscription uuid.UUID) (string, error)

	// CheckFilters says what the relay would not understand of a webhook's filters; nil: every JSON object is taken, and
	// status_reason says afterwards that the relay cannot use it.
	CheckFilters func(filters []byte) error
}

// Store is the way to the database.
type Store struct {
	db DB
	Options
	schemas schemas // compiled JSON Schemas of event types
}

// New makes a store.
func New(db DB, o Options) *Store { return &Store{db: db, Options: o} }

// Scope is something that a token may do.
type Scope string

// Scopes. Manage includes Read.
const (
	ScopeRead    Scope = "read"    // look at everything
	ScopeManage  Scope = "manage"  // change subscriptions and event types, test, replay, redeliver
	ScopePublish Scope = "publish" // publish events
)

// Scopes lists all.
var Scopes = []Scope{ScopeRead, ScopeManage, ScopePublish}

// Principal is who asks.
type Principal struct {
	TokenID uuid.UUID // zero: the token of the configuration
	Name    string
	Scopes  []Scope
	Tenant  *string // nil: all tenants
}

// May reports whether the principal has a scope.
func (p *Principal) May(s Scope) bool {
	return slices.Contains(p.Scopes, s) || s == ScopeRead && slices.Contains(p.Scopes, ScopeManage)
}

// Everywhere reports whether the principal is bound to no tenant: what concerns the whole system is for these only.
func (p *Principal) Everywhere() bool { return p.Tenant == nil }

// Desk is the store as one principal sees it. Which scope an operation takes is the caller's to check (the route says it);
// the tenant is checked here.
type Desk struct {
	*Store
	who *Principal
}

// For opens a principal's desk.
func (s *Store) For(p *Principal) *Desk { return &Desk{s, p} }

// Kind says what is wrong with a request; it decides the HTTP status.
type Kind string

// Kinds of errors. Any other error is a failure of ours or of the database.
const (
	NotFound        Kind = "not_found"       // 404: there is none, or none of this tenant
	Invalid         Kind = "invalid"         // 422: Field says which value
	Conflict        Kind = "conflict"        // 409: the state of things does not allow it
	Stale           Kind = "stale"           // 412: the row has changed since the revision that the caller knows
	Forbidden       Kind = "forbidden"       // 403
	Unauthenticated Kind = "unauthenticated" // 401
	TooMany         Kind = "too_many"        // 429: RetryAfter says when to come back
)

// Error is one whose cause is the caller's. Message names the value, where that is no secret, and the remedy.
type Error struct {
	Kind       Kind
	Field      string // JSON name of the field of the request, for Invalid
	Message    string
	RetryAfter int // seconds, for TooMany
}

// Error returns the message, behind the field.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

func invalid(field, format string, args ...any) error {
	return &Error{Kind: Invalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &Error{Kind: NotFound, Message: fmt.Sprintf(format, args...)}
}

// Page is a part of a list, the newest first.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next_cursor,omitempty" doc:"Cursor of the next page; none: this is the last one"`
}

// Limits of lists.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)
