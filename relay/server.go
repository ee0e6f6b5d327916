package relay

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/record"
)

// serverState is what the server and the session's role are like.
type serverState struct {
	Level, Encoding string
	Version         int
	Standby         bool
	Replication     bool   // the role may replicate
	System          string // identifier of the cluster; a copy of its files has the same
	Timeline        int    // 0 on a standby
	Schema          bool
	user            string
}

// serverQuery asks for the timeline by the name of a WAL file, which changes the moment a standby is promoted: what
// pg_control_checkpoint() says lags behind. The schema is looked for in the catalog: to_regclass() fails without USAGE on it.
const serverQuery = `SELECT current_setting('wal_level'), current_setting('server_encoding'), current_setting('server_version_num')::int, pg_is_in_recovery(),
	coalesce((SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), false)
		OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'rds_replication' AND pg_has_role(r.oid, 'member')),
	(SELECT system_identifier::text FROM pg_control_system()),
	CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
	EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'outbox' AND c.relname = 'checkpoint')`

func readServer(ctx context.Context, conn *pgx.Conn) (serverState, error) {
	s := serverState{user: conn.Config().User}
	err := conn.QueryRow(ctx, serverQuery).Scan(&s.Level, &s.Encoding, &s.Version, &s.Standby, &s.Replication, &s.System, &s.Timeline, &s.Schema)
	if err != nil {
		return s, fmt.Errorf("look at the server: %w", err)
	}
	return s, nil
}

// problems lists why a server or role cannot work, each with its remedy.
func (s *serverState) problems() []*Problem {
	var all []*Problem
	if s.Version < 140000 {
		all = append(all, &Problem{Code: CodeVersion, What: fmt.Sprintf("Postgres %d is too old, walhook needs 14 or later", s.Version/10000),
			Remedy: "upgrade Postgres"})
	}
	if s.Standby {
		all = append(all, &Problem{Code: CodeStandby, What: "this server is a standby",
			Remedy: "connect to the primary (target_session_attrs=read-write in the connection string finds it)"})
	}
	if s.Encoding != "UTF8" && s.Encoding != "SQL_ASCII" { // a logical message would arrive as it is stored
		all = append(all, &Problem{Code: CodeEncoding, What: fmt.Sprintf("the database has the encoding %s, and JSON is UTF-8", s.Encoding),
			Remedy: "use a database with the encoding UTF8"})
	}
	if s.Level != "logical" {
		all = append(all, &Problem{Code: CodeWALLevel, What: fmt.Sprintf("wal_level is %s, logical replication needs logical", s.Level),
			Remedy: "run ALTER SYSTEM SET wal_level = 'logical' and restart Postgres"})
	}
	if !s.Replication {
		all = append(all, &Problem{Code: CodeReplication, What: fmt.Sprintf("role %s may not replicate", s.user),
			Remedy: fmt.Sprintf("run ALTER ROLE %s REPLICATION", pgx.Identifier{s.user}.Sanitize())})
	}
	return all
}

// clone refuses another Postgres cluster than the one that the checkpoint was made for.
func (s *serverState) clone(c record.Checkpoint) *Problem { return cloneOf(c.System, s.System) }

// cloneOf compares the identifiers of clusters. After a restore transactions have other ids than the checkpoint's mark means:
// 3 is the first that there is (transam.h), so that every event is looked at.
func cloneOf(original, present string) *Problem {
	if original == present {
		return nil
	}
	return &Problem{Code: CodeClone,
		What: fmt.Sprintf("the checkpoint belongs to the Postgres cluster %s and this is %s: a copy must not send what the original sends", original, present),
		Remedy: fmt.Sprintf("connect to the original; if this cluster has taken its place, for good, run after pg_upgrade: "+
			"UPDATE outbox.checkpoint SET system_identifier = '%[1]s'; after a restore: "+
			"UPDATE outbox.checkpoint SET system_identifier = '%[1]s', recorded_xid = '3'; the relay then goes on from the slot, or finds it missing, "+
			"and with on_lost_slot: recover delivers from outbox.events what has no outcome yet; if this database is meant to send beside the original, "+
			"delete the slot's row from outbox.checkpoint, drop the slot and run walhook init", present)}
}
