package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay"
	whsql "github.com/walhook/walhook/sql"
)

// grantRoles makes the group roles with their rights and adds that to done. What the role of url lacks for it is
// relay.ErrSetup, with the remedy.
func grantRoles(ctx context.Context, url string, done []string) ([]string, error) {
	if err := whsql.GrantRoles(ctx, url); err != nil {
		return done, roleRights(err, url)
	}
	return append(done, "made and granted the roles "+strings.Join(whsql.Roles(), ", ")), nil
}

// roleRights adds the remedy where the role may not make others, or does not own what it is to grant.
func roleRights(err error, url string) error {
	cfg, parseErr := pgx.ParseConfig(url)
	if parseErr != nil || sqlState(err) != insufficientPrivilege {
		return err
	}
	return fmt.Errorf("%w: role %s may not make or grant the roles: run ALTER ROLE %s CREATEROLE as a superuser, and walhook init --roles as the owner of schema outbox, "+
		"or give a superuser what walhook init --roles --print-sql prints: %w", relay.ErrSetup, cfg.User, pgx.Identifier{cfg.User}.Sanitize(), err)
}
