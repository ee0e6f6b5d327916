package admin

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// Every constraint that a user can meet has its sentence, and no sentence is about one that is not there.
func TestEveryConstraintIsWorded(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), harness.Database(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(t.Context())) })
	rows, err := conn.Query(t.Context(), `SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = ANY (
			'{outbox.subscriptions,outbox.events,outbox.event_types,outbox.api_tokens}'::regclass[])
		AND conname NOT IN ('subscriptions_status_is_known', 'api_tokens_hash_is_sha256')
		UNION ALL SELECT unnest('{replays_since_is_before_until,replays_range_is_finite}'::text[])`)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	for _, name := range names {
		r, known := RefusalOf(name)
		require.True(t, known, name)
		require.NotEmpty(t, r.Remedy, name)
	}
	require.Len(t, refusals, len(names), "words for what no table has")
}

func TestRefusedByPostgres(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pg      pgconn.PgError
		kind    Kind
		field   string
		message string
	}{
		{pgconn.PgError{Code: "P0002", Message: "there is no delivery 7"}, NotFound, "", "there is no delivery 7"},
		{pgconn.PgError{Code: "55000", Message: "it is held"}, Conflict, "", "it is held"},
		{pgconn.PgError{Code: "55006", Message: "it is being attempted"}, Conflict, "", "it is being attempted"},
		{pgconn.PgError{Code: "23505", ConstraintName: "event_types_pkey"}, Conflict, "", "there is an event type of this name already"},
		{pgconn.PgError{Code: "23505", ConstraintName: "x_key"}, Conflict, "", "there is one like it (x_key) already"},
		{pgconn.PgError{Code: "23514", ConstraintName: "subscriptions_max_retries_is_0_to_10"}, Invalid, "max_retries", "it is refused: give 0 to 10"},
		{pgconn.PgError{Code: "23514", ConstraintName: "subscriptions_event_types_are_at_most_1000"}, Invalid, "events", "it is refused: give at most 1000, or prefixes as patient.*"},
		{pgconn.PgError{Code: "23514", ConstraintName: "subscriptions_colour_is_blue"}, Invalid, "", "it is required that colour is blue"},
		{pgconn.PgError{Code: "23514", Message: "a function says it"}, Invalid, "", "a function says it"},
		{pgconn.PgError{Code: "23502", ColumnName: "url", Message: "null value"}, Invalid, "url", nothingMayBeAbsent},
		{pgconn.PgError{Code: "23502", Message: "payload is null"}, Invalid, "", "payload is null"},
		{pgconn.PgError{Code: "22023", Message: "overlap is -1"}, Invalid, "", "overlap is -1"},
		{pgconn.PgError{Code: "22P05", Message: "unsupported Unicode escape sequence"}, Invalid, "", nulIsNotStorable},
		{pgconn.PgError{Code: "22021", Message: "invalid byte sequence"}, Invalid, "", nulIsNotStorable},
		{pgconn.PgError{Code: "22P02", Message: "invalid input syntax for type json"}, Invalid, "", "a value has not the form that its type has: invalid input syntax for type json"},
		{pgconn.PgError{Code: "22001", Message: "value too long"}, Invalid, "", "a value is refused: value too long"},
		{pgconn.PgError{Code: "54001", Message: "stack depth limit exceeded"}, Invalid, "", nestedTooDeep},
	} {
		c.pg.Detail, c.pg.Hint, c.pg.Where = "Failing row contains (s3cret)", "s3cret", "s3cret"
		var e *Error
		require.ErrorAs(t, refused(fmt.Errorf("write: %w", &c.pg)), &e, c.pg.Code)
		require.Equal(t, Error{Kind: c.kind, Field: c.field, Message: c.message}, *e, c.pg.Code)
	}
	for _, other := range []error{nil, errors.New("broken"), fmt.Errorf("write: %w", &pgconn.PgError{Code: "40001"})} {
		require.Equal(t, other, refused(other))
	}
}

func TestRequired(t *testing.T) {
	t.Parallel()
	require.Equal(t, "event types are many", Required("subscriptions_event_types_are_many"))
	require.Equal(t, "name is blue", Required("event_types_name_is_blue"))
}

func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	require.Equal(t, `"https://host/a"`, withoutPassword(`"https://host/a"`))
	require.Equal(t, `"[redacted]@host"`, withoutPassword(`"https://u:s3@cret@host"`))
}
