package main

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/relay"
)

// SQLSTATEs that lie with whoever set things up
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
const (
	insufficientPrivilege = "42501"
	invalidPassword       = "28P01"
	invalidAuthorization  = "28000"
	undefinedDatabase     = "3D000"
	undefinedSchema       = "3F000"
	undefinedTable        = "42P01"
	undefinedFunction     = "42883"
)

// sqlState returns the code of the Postgres error in err; empty when there is none.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// refused reports that the connection string or the role's rights are wrong: trying the same again is
// pointless.
func refused(err error) bool {
	var unreadable *pgconn.ParseConfigError
	switch sqlState(err) {
	case insufficientPrivilege, invalidPassword, invalidAuthorization, undefinedDatabase:
		return true
	}
	return errors.As(err, &unreadable)
}

// rightsHint says what to do about a missing right, where the error does not say it itself.
func rightsHint(err error) string {
	if sqlState(err) != insufficientPrivilege || errors.Is(err, relay.ErrSetup) {
		return ""
	}
	return "the role of database_url lacks that right: use the role that ran walhook init, or grant it"
}

// schemaMissing turns the absence of what a command reads or calls in schema outbox into its remedy. Other
// errors pass unchanged.
func schemaMissing(err error) error {
	switch sqlState(err) {
	case undefinedSchema, undefinedTable, undefinedFunction:
		return fmt.Errorf("%w: the database has no schema outbox, or an old one: run walhook init (%w)", relay.ErrSetup, err)
	}
	return err
}

// migrationRights adds the remedy to a migration that the role may not do.
func migrationRights(err error, url string) error {
	cfg, parseErr := pgx.ParseConfig(url)
	if parseErr != nil || sqlState(err) != insufficientPrivilege {
		return err
	}
	role, database := pgx.Identifier{cfg.User}.Sanitize(), pgx.Identifier{cfg.Database}.Sanitize()
	return fmt.Errorf("%w: role %s may not make or change schema outbox: run GRANT CREATE ON DATABASE %s TO %s, "+
		"or run walhook init as the owner of the database or schema: %w", relay.ErrSetup, cfg.User, database, role, err)
}
