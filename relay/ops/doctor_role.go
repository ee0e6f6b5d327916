package ops

import (
	"context"
	"fmt"
	"strings"
)

// need is what the relay does with an object of schema outbox: rights on a table, or EXECUTE on a function.
type need struct {
	object  string
	columns string // that rights are needed on; empty: the whole table
	rights  string
	api     bool // only API and dashboard take it
}

// needs are all rights that "walhook run" takes, as role walhook_relay has them (sql/roles.sql).
var needs = []need{
	{"events", "", "SELECT INSERT", false},
	{"events_default", "", "SELECT", false},
	{"emitted_events", "", "SELECT INSERT DELETE", false},
	{"emitted_events_default", "", "SELECT", false},
	{"attempts", "", "SELECT INSERT", false},
	{"deliveries", "", "SELECT INSERT UPDATE DELETE", false},
	{"dead_letters", "", "SELECT INSERT DELETE", false},
	{"routing", "", "SELECT INSERT UPDATE DELETE", false},
	{"recorded", "", "SELECT INSERT UPDATE DELETE", false},
	{"recoveries", "", "SELECT INSERT DELETE", false},
	{"replays", "", "SELECT UPDATE DELETE", false},
	{"system_samples", "", "SELECT INSERT DELETE", false},
	{"system_now", "", "SELECT", false},
	{"subscription_totals", "", "SELECT INSERT UPDATE", false},
	{"subscription_samples", "", "SELECT INSERT", false},
	{"wal_samples", "", "SELECT INSERT", false},
	{"alerts", "", "SELECT INSERT UPDATE DELETE", false},
	{"checkpoint", "", "SELECT UPDATE", false},
	{"epochs", "", "SELECT INSERT", false},
	{"subscriptions", "", "SELECT", false},
	{"subscriptions", "status status_reason verified_at verification_error allowed_rate is_active", "UPDATE", false},
	{"subscription_revisions", "", "SELECT DELETE", false},
	{"replication_lag", "", "SELECT", false},
	{"subscription_stats", "", "SELECT", false},
	{"wal_history", "", "SELECT", false},
	{"create_partitions", "", "EXECUTE", false},
	{"old_partitions", "", "EXECUTE", false},
	{"drop_partitions", "", "EXECUTE", false},
	{"remove_old", "", "EXECUTE", false},

	{"subscriptions", "", "INSERT UPDATE DELETE", true},
	{"event_types", "", "SELECT INSERT UPDATE DELETE", true},
	{"api_tokens", "", "SELECT INSERT UPDATE", true},
	{"replays", "", "INSERT", true},
	{"queue", "", "SELECT", true},
	{"calls", "", "SELECT", true},
}

// needsQuery finds the rights that are missing, without naming an object to Postgres: that would fail without USAGE on the schema.
// $1 objects, $2 columns, $3 rights, in step with each other.
const needsQuery = `SELECT w.object, coalesce(w.col, ''), w.needed
	FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w(object, col, needed, i)
	JOIN pg_namespace n ON n.nspname = 'outbox'
	LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.object
	LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.col AND NOT a.attisdropped
	LEFT JOIN LATERAL (SELECT bool_and(has_function_privilege(p.oid, 'EXECUTE')) AS may FROM pg_proc p
		WHERE p.pronamespace = n.oid AND p.proname = w.object) AS f ON true
	WHERE NOT CASE
		WHEN w.needed = 'USAGE' THEN has_schema_privilege(n.oid, 'USAGE')
		WHEN w.needed = 'EXECUTE' THEN coalesce(f.may, true)
		WHEN c.oid IS NULL THEN true -- what is missing is a migration
		WHEN a.attnum IS NOT NULL THEN has_column_privilege(c.oid, a.attnum, w.needed)
		ELSE has_table_privilege(c.oid, w.needed) END
	ORDER BY w.i`

// lookAtPrivileges names each missing right with the statement that gives it.
func (d *doctor) lookAtPrivileges(ctx context.Context) error {
	objects, columns, rights := []string{"outbox"}, []string{""}, []string{"USAGE"}
	for _, n := range needs {
		if n.api && !d.API {
			continue
		}
		for right := range strings.FieldsSeq(n.rights) {
			for _, column := range strings.Split(n.columns, " ") {
				objects, columns, rights = append(objects, n.object), append(columns, column), append(rights, right)
			}
		}
	}
	rows, err := ask[missingRight](ctx, d, needsQuery, objects, columns, rights)
	if err != nil {
		return fmt.Errorf("look at the role's rights: %w", err)
	}
	for len(rows) > 0 {
		first, list, n := rows[0], "", 0
		for ; n < len(rows) && rows[n].Object == first.Object && (rows[n].Column == "") == (first.Column == ""); n++ {
			list += ", " + rows[n].text()
		}
		rows, list = rows[n:], list[2:]
		d.found("privileges", fmt.Sprintf("role %s lacks %s on %s", d.conn.Config().User, list, objectText(first.Object, first.Right)),
			fmt.Sprintf("GRANT %s ON %s TO %s (all that a relay needs: GRANT walhook_relay TO %s)", list, objectText(first.Object, first.Right), d.role(), d.role()))
	}
	return nil
}

// missingRight is a row of needsQuery.
type missingRight struct{ Object, Column, Right string }

// text writes a right as GRANT takes it.
func (m missingRight) text() string {
	if m.Column == "" {
		return m.Right
	}
	return m.Right + " (" + ident(m.Column) + ")"
}

func objectText(object, right string) string {
	switch right {
	case "USAGE":
		return "SCHEMA " + object
	case "EXECUTE":
		return "FUNCTION outbox." + object
	}
	return "outbox." + object
}

// lookAtRole judges what the role may beyond what it needs, and what it cannot see.
func (d *doctor) lookAtRole(ctx context.Context) error {
	type row struct{ Super, Sees bool }
	r, err := askOne[row](ctx, d, `SELECT rolsuper, rolsuper OR pg_has_role('pg_read_all_stats', 'usage') FROM pg_roles WHERE rolname = current_user`)
	if err != nil {
		return fmt.Errorf("look at the role: %w", err)
	}
	if r.Super {
		d.found("superuser", fmt.Sprintf("role %s is a superuser", d.conn.Config().User),
			"walhook init --roles, then CREATE ROLE relay LOGIN REPLICATION PASSWORD '…' IN ROLE walhook_relay, and that role in database_url")
	}
	if !r.Sees {
		d.found("monitoring_rights", fmt.Sprintf("role %s sees no details of other roles' sessions", d.conn.Config().User), "GRANT pg_monitor TO "+d.role())
	}
	return nil
}

// lookAtPublic looks for rights that everybody has.
func (d *doctor) lookAtPublic(ctx context.Context) error {
	rows, err := ask[struct{ Name, Rights string }](ctx, d, `SELECT c.relname::text, string_agg(DISTINCT x.privilege_type, ', ' ORDER BY x.privilege_type)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'outbox'
		CROSS JOIN LATERAL (SELECT * FROM aclexplode(c.relacl)) AS x
		WHERE x.grantee = 0 AND c.relkind IN ('r', 'p', 'v') GROUP BY 1 ORDER BY 1`)
	if err != nil {
		return fmt.Errorf("look at the rights of PUBLIC: %w", err)
	}
	for _, r := range rows {
		d.found("public_rights", fmt.Sprintf("PUBLIC has %s on outbox.%s", r.Rights, r.Name), fmt.Sprintf("REVOKE ALL ON outbox.%s FROM PUBLIC", ident(r.Name)))
	}
	return nil
}
