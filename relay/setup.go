package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/relay/stream"
)

// ErrSetup wraps what is missing before a relay can run; the text says how to mend it.
var ErrSetup = errors.New("not set up")

// Setup makes the publications, then the slot with its first checkpoint, where they are missing, and
// reports each step that it took. The schema must exist. It may be repeated, also after it was killed half-way.
func Setup(ctx context.Context, url, slot string) (done []string, err error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := checkServer(ctx, conn); err != nil {
		return nil, err
	}
	for _, p := range publications {
		made, err := ensurePublication(ctx, conn, p)
		if err != nil {
			return done, err
		}
		fault.PointIf(made, fault.SetupPublication)
		if made {
			done = append(done, "created publication "+p.name+" for "+p.table)
		}
	}
	if err := checkPublications(ctx, conn); err != nil {
		return done, err
	}
	made, err := ensureSlot(ctx, conn, url, slot)
	if made {
		done = append(done, "created replication slot "+slot)
	}
	return done, err
}

// checkServer refuses a server or role that cannot work, with the remedy.
func checkServer(ctx context.Context, conn *pgx.Conn) error {
	var level, encoding string
	var version int
	var recovery, replication bool
	err := conn.QueryRow(ctx, `SELECT current_setting('wal_level'), current_setting('server_encoding'), current_setting('server_version_num')::int, pg_is_in_recovery(),
		coalesce((SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), false)
			OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'rds_replication' AND pg_has_role(r.oid, 'member'))`).
		Scan(&level, &encoding, &version, &recovery, &replication)
	switch {
	case err != nil:
		return fmt.Errorf("look at the server: %w", err)
	case version < 140000:
		return fmt.Errorf("%w: Postgres %d is too old, walhook needs 14 or later", ErrSetup, version/10000)
	case recovery:
		return fmt.Errorf("%w: this server is a standby: connect to the primary (target_session_attrs=read-write in the connection string finds it)", ErrSetup)
	case encoding != "UTF8" && encoding != "SQL_ASCII": // a logical message would arrive as it is stored
		return fmt.Errorf("%w: the database has the encoding %s, and JSON is UTF-8: use a database with the encoding UTF8", ErrSetup, encoding)
	case level != "logical":
		return fmt.Errorf("%w: wal_level is %s, logical replication needs logical: run ALTER SYSTEM SET wal_level = 'logical' and restart Postgres", ErrSetup, level)
	case !replication:
		return fmt.Errorf("%w: role %s may not replicate: run ALTER ROLE %s REPLICATION", ErrSetup, conn.Config().User, pgx.Identifier{conn.Config().User}.Sanitize())
	}
	return nil
}

// ensureSlot makes the slot and its checkpoint. A slot of ours without a checkpoint was left by a setup that
// was killed between the two: nothing was ever read from it, so it is made anew. A checkpoint without its slot
// is a lost slot, which is never papered over.
func ensureSlot(ctx context.Context, conn *pgx.Conn, url, slot string) (bool, error) {
	// One setup at a time.
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtext('outbox.setup'))"); err != nil {
		return false, fmt.Errorf("lock setup: %w", err)
	}
	var other string
	err := conn.QueryRow(ctx, "SELECT coalesce(min(slot_name), '') FROM outbox.checkpoint WHERE slot_name <> $1", slot).Scan(&other)
	if err != nil {
		return false, fmt.Errorf("look for other slots: %w", err)
	}
	if other != "" {
		return false, fmt.Errorf("%w: this database is already relayed through slot %s: run with --slot %s", ErrSetup, other, other)
	}
	state, err := readSlot(ctx, conn, slot)
	if err != nil {
		return false, err
	}
	checkpoint, err := record.Read(ctx, conn, slot)
	switch {
	case err == nil:
		return false, errors.Join(checkSlot(state, slot), checkAhead(state, slot, checkpoint))
	case !errors.Is(err, record.ErrNoCheckpoint):
		return false, err
	case state.Exists:
		err = dropHalfMade(ctx, conn, slot, state)
	default:
		err = claimName(ctx, conn, slot)
	}
	if err == nil {
		err = makeSlot(ctx, conn, url, slot)
	}
	return err == nil, err
}

// claimName notes, before the slot is made, that its name is ours: the row stays for good. It is the only way
// to know a slot again that a killed setup left behind, since slots carry no mark and are not transactional.
func claimName(ctx context.Context, conn *pgx.Conn, slot string) error {
	me := identity("setup")
	_, err := conn.Exec(ctx, "INSERT INTO outbox.epochs (slot_name, epoch, version, host, pid) VALUES ($1, 0, $2, $3, $4) ON CONFLICT DO NOTHING",
		slot, me.Version, me.Host, me.PID)
	if err != nil {
		return fmt.Errorf("claim the name of slot %s: %w", slot, err)
	}
	fault.Point(fault.SetupClaimed)
	return nil
}

// dropHalfMade drops a slot that has no checkpoint, if it is proven to be ours. Any other may be somebody's,
// who would lose what it holds.
func dropHalfMade(ctx context.Context, conn *pgx.Conn, slot string, state slotState) error {
	if state.Foreign != "" {
		return foreignSlot(slot, state.Foreign)
	}
	var ours bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM outbox.epochs WHERE slot_name = $1)", slot).Scan(&ours); err != nil {
		return fmt.Errorf("look for the maker of slot %s: %w", slot, err)
	}
	switch {
	case !ours:
		return fmt.Errorf("%w: replication slot %s exists and was not made by walhook: choose another name with --slot, "+
			"or, if nobody needs what it holds, run SELECT pg_drop_replication_slot('%s')", ErrSetup, slot, slot)
	case state.Active:
		return fmt.Errorf("%w: replication slot %s has no checkpoint and is in use by process %d of Postgres: stop the walhook init or run that uses it, then try again", ErrSetup, slot, state.PID)
	}
	if _, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", slot); err != nil {
		return fmt.Errorf("drop the half-made slot %s: %w", slot, err)
	}
	fault.Point(fault.SetupDropped)
	return nil
}

// makeSlot creates the slot and writes the checkpoint that belongs to it.
func makeSlot(ctx context.Context, conn *pgx.Conn, url, slot string) error {
	created, err := stream.CreateSlot(ctx, url, slot)
	if err != nil {
		return privileges(err, "have the REPLICATION attribute")
	}
	fault.Point(fault.SetupSlot)
	defer created.Close(context.WithoutCancel(ctx))
	return record.Begin(ctx, conn, slot, created.Snapshot, created.From, created.System.Identifier, int(created.System.Timeline))
}

// privileges adds a remedy to SQLSTATE 42501.
func privileges(err error, needed string) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		return fmt.Errorf("%w: the role must %s: %w", ErrSetup, needed, err)
	}
	return err
}
