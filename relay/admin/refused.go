package admin

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs of what the schema refuses (https://www.postgresql.org/docs/current/errcodes-appendix.html).
const (
	noDataFound        = "P0002"
	checkViolation     = "23514"
	notNullViolation   = "23502"
	uniqueViolation    = "23505"
	dataException      = "22" // the class
	invalidParameter   = "22023"
	notInRepertoire    = "22021"
	untranslatable     = "22P05"
	invalidText        = "22P02"
	notInRightState    = "55000"
	objectInUse        = "55006"
	statementTooDeep   = "54001"
	programLimit       = "54000"
	nulIsNotStorable   = "it has a NUL character (in JSON \\u0000) or is no UTF-8, which Postgres cannot store: leave that out"
	nestedTooDeep      = "it is nested too deep or too large for Postgres: flatten it"
	formIsNotItsType   = "a value has not the form that its type has: %s"
	nothingMayBeAbsent = "it is not given, and has no default: give it"
)

// refused turns what Postgres says of a request that it refuses into an Error. Of what it says besides, nothing is told:
// its details show the failing row, with its secret. Other errors pass as they are.
func refused(err error) error { return refusedValue(err, nil) }

// refusedValue is refused for who knows the values: shown returns how a message may show that of a field, if at all.
func refusedValue(err error, shown func(field string) string) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch {
	case pg.Code == noDataFound:
		return notFound("%s", pg.Message)
	case pg.Code == notInRightState, pg.Code == objectInUse:
		return &Error{Kind: Conflict, Message: pg.Message}
	case pg.Code == uniqueViolation:
		return taken(pg)
	case pg.Code == checkViolation:
		return violated(pg, shown)
	case pg.Code == notNullViolation:
		if pg.ColumnName == "" {
			return invalid("", "%s", pg.Message) // a function's own words
		}
		return invalid(Refusal{Column: pg.ColumnName}.Field(), nothingMayBeAbsent)
	case pg.Code == statementTooDeep, pg.Code == programLimit:
		return invalid("", nestedTooDeep)
	case strings.HasPrefix(pg.Code, dataException):
		return malformed(pg)
	}
	return err
}

// violated words a check; a function that checks has words of its own, and no constraint.
func violated(pg *pgconn.PgError, shown func(string) string) error {
	if pg.ConstraintName == "" {
		return invalid("", "%s", pg.Message)
	}
	r, known := RefusalOf(pg.ConstraintName)
	if !known {
		return invalid("", "it is required that %s", Required(pg.ConstraintName))
	}
	what := "it"
	if shown != nil {
		if value := shown(r.Field()); value != "" {
			what = value
		}
	}
	return invalid(r.Field(), "%s is refused: %s", what, r.Remedy)
}

// uniques says what is there already.
var uniques = map[string]string{
	"event_types_pkey":             "an event type of this name",
	"event_types_number_is_unique": "an event type of this number",
	"api_tokens_name":              "a token of this name that is not revoked",
	"subscriptions_pkey":           "a webhook of this id",
}

func taken(pg *pgconn.PgError) error {
	what, known := uniques[pg.ConstraintName]
	if !known {
		what = "one like it (" + pg.ConstraintName + ")"
	}
	return &Error{Kind: Conflict, Message: fmt.Sprintf("there is %s already", what)}
}

// malformed is about values that are none of their type. Which field it was, Postgres does not say.
func malformed(pg *pgconn.PgError) error {
	switch pg.Code {
	case invalidParameter:
		return invalid("", "%s", pg.Message) // a function's own words
	case untranslatable, notInRepertoire:
		return invalid("", nulIsNotStorable)
	case invalidText:
		return invalid("", formIsNotItsType, pg.Message)
	}
	return invalid("", "a value is refused: %s", pg.Message)
}

// about gives the field to a refusal that names none.
func about(field string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Kind == Invalid && e.Field == "" {
		named := *e
		named.Field = field
		return &named
	}
	return err
}
