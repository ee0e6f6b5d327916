package sql

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"
)

//go:embed roles.sql
var roles string

// Roles are the group roles that roles.sql makes.
func Roles() []string {
	return []string{"walhook_relay", "walhook_app", "walhook_config", "walhook_reader"}
}

// RolesText returns the script that makes the roles and gives them their rights, as plain SQL. It may be repeated.
func RolesText() string { return roles }

// GrantRoles runs that script on the database at url, in one transaction: making a role takes CREATEROLE, and
// granting takes the owner of the schema. Several may run at once: one works, the others wait.
func GrantRoles(ctx context.Context, url string) error {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer func() { _ = db.Close() }()
	// Statements that are sent together are one transaction.
	if _, err := db.ExecContext(ctx, "SELECT pg_advisory_xact_lock(hashtext('outbox.schema'));\n"+roles); err != nil {
		return fmt.Errorf("make and grant the roles: %w", err)
	}
	return nil
}
